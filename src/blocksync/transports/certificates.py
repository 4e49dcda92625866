"""One-time certificates, and TLS 1.3 with AES-GCM that trusts exactly one of them.

Each end makes a key that never leaves its memory and learns the other's certificate over ssh, so ssh's own
check of the host decides who is trusted. No name, date or authority is looked at: equality is.
"""

import datetime
import os
import socket
import ssl
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from blocksync.errors import Failed

_CIPHERS = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"})
# The clocks of two hosts may be years apart; the certificate lives as long as the process.
_VALID = (datetime.datetime(2000, 1, 1), datetime.datetime(2100, 1, 1))


@dataclass(frozen=True, slots=True)
class Identity:
    """One end of a conversation: its certificate in DER, and certificate and key in PEM."""

    certificate: bytes
    _pem: bytes = field(repr=False)

    def connect(self, stream: socket.socket, peer: bytes) -> ssl.SSLSocket:
        """TLS as a client with the end whose certificate is `peer` (DER); Failed for any other end."""
        context = self._context(ssl.PROTOCOL_TLS_CLIENT, peer)
        context.check_hostname = False
        return _confirmed(context.wrap_socket(stream), peer)

    def accept(self, stream: socket.socket, peer: bytes) -> ssl.SSLSocket:
        """TLS as a server with the end whose certificate is `peer` (DER); Failed for any other end."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER, peer)
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        return _confirmed(context.wrap_socket(stream, server_side=True), peer)

    def _context(self, protocol: int, peer: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=peer)
        # The ssl module reads keys from files only; this one is on no disk.
        memory = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            os.write(memory, self._pem)
            context.load_cert_chain(f"/proc/self/fd/{memory}")
        finally:
            os.close(memory)
        return context


def make_identity() -> Identity:
    """A new P-256 key and its self-signed certificate (RFC 5280)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "blocksync")])
    unsigned = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *_VALID)
    certificate = unsigned.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + private
    return Identity(certificate.public_bytes(serialization.Encoding.DER), pem)


def _confirmed(stream: ssl.SSLSocket, peer: bytes) -> ssl.SSLSocket:
    cipher = (stream.cipher() or ("none",))[0]
    if stream.getpeercert(binary_form=True) != peer:
        stream.close()
        raise Failed("tls stream", "the other end has another certificate than was agreed on over ssh")
    if cipher not in _CIPHERS:
        stream.close()
        raise Failed("tls stream", f"the cipher would be {cipher}, not AES-GCM")
    return stream
