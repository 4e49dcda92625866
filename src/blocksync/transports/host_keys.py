"""Fingerprints of host keys as `ssh-keygen -l` prints them."""

import base64
import hashlib
import re

from blocksync.errors import Usage

# What a server can be asked to show a key of; one key of each family is usual (RFC 8709, 5656, 8332).
FAMILIES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
)


def checked_fingerprint(text: str) -> str:
    """`text` as OpenSSH writes it, SHA256: and 43 characters of base64. Raises Usage when it is none."""
    if re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}=?", text) is None:
        way_out = "on the host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
        raise Usage(f"fingerprint {text!r}", "not SHA256: and 43 characters of base64", way_out)
    return text.rstrip("=")


def fingerprint(blob: bytes) -> str:
    """The fingerprint of a public key in its wire form (RFC 4253, section 6.6)."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
