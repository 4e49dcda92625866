"""The far end of a pass as the near one holds it: started, greeted, asked, and let go."""

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from msgspec import structs

from blocksync.agent import bootstrap
from blocksync.digests.hashes import BLAKE2B, BLAKE3, HASHES, MD5, SHA1, SHA256, XXH3, Hash
from blocksync.ends.thread_group import Crew
from blocksync.errors import BlocksyncError, Failed, Usage
from blocksync.foreign import shown, shown_bytes
from blocksync.transports.failures import tells_of_the_link_alone
from blocksync.transports.interface import BROKEN, Transport, stands
from blocksync.transports.tls import TlsChannel
from blocksync.wire.compression import CODECS
from blocksync.wire.conversation import await_hello, boot, expect, say
from blocksync.wire.frames import GREETING, LOADER_GREETING, NO_TERMS, FrameKind, Violation
from blocksync.wire.link import PATIENCE, Link, Lost
from blocksync.wire.messages import (
    MOST_TEXT,
    PROTOCOL,
    TLS,
    Done,
    ErrorMessage,
    FarDevice,
    Hello,
    PassOrder,
    Ready,
    Role,
)

# What may stand in for a hash that the far end does not have, the fastest first. For BLAKE3, which is asked
# for when a guest is not trusted, only what nobody can make collide.
STAND_INS = {XXH3: (XXH3, BLAKE2B, SHA1, MD5, SHA256), BLAKE3: (BLAKE3, BLAKE2B, SHA256)}

# Longer than a link may be silent: a person may be typing a password. It is for all that is said until both
# know each other, byte by byte or at once.
PATIENCE_AT_FIRST = 120.0
_LAST_WORDS = 400
_END_SECONDS = 5.0


class FarEnd:
    """A conversation with an agent on another host; a context manager.

    `name` is what the host is called in errors. Raises Failed when there is nobody to talk to.
    """

    def __init__(self, transport: Transport, name: str, *, patience: float = PATIENCE) -> None:
        self.name = name
        self.crew = Crew()
        self.moment: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._patience = patience
        self._channel = transport.run(bootstrap.argv())
        self.link = Link(
            self._channel.stdout.fileno(),
            self._channel.stdin.fileno(),
            peer=name,
            patience=PATIENCE_AT_FIRST,
        )
        self.link.deadline = time.monotonic() + PATIENCE_AT_FIRST
        try:
            self.hello = self._meet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stands(self) -> bool:
        """Whether the agent still waits there, as far as is known here."""
        return stands(self._channel)

    def close(self) -> None:
        """End every thread and the channel. May be called again."""
        self.link.close()
        self.crew.join()
        self._channel.close()

    def abandon(self, error: BlocksyncError) -> None:
        """Tell the far end why the pass ends here, and end every thread of this end."""
        with suppress(Lost):
            say(self.link, ErrorMessage.of(error))
        self.link.close()
        self.crew.join()

    def farewell(self, done: Done) -> None:
        """Tell a far source that all is durable; nothing depends on its hearing it."""
        with suppress(Lost):
            say(self.link, done)

    @property
    def same_kernel(self) -> bool:
        """Whether the far end runs on this very machine."""
        return self.hello.boot != "" and self.hello.boot == boot()

    def hash_for(self, wanted: Hash) -> Hash:
        """The hash of this pass: the one that is wanted, or what can stand in for it. Raises Usage."""
        candidates = STAND_INS.get(wanted, (wanted,))
        for candidate in candidates:
            if candidate.name in self.hello.hashes:
                return candidate
        names = ", ".join(candidate.name for candidate in candidates)
        raise Usage(self.name, f"has none of the hashes {names}", "install xen2kvm or a Python there")

    def describe(
        self, role: Role, path: str, *, signature: bool = False, origin: str | None = None
    ) -> FarDevice:
        """What a path there is, as source or target, with the identity of its `origin` where one is named.

        Raises Usage when the far end cannot be that.
        """
        if role not in self.hello.roles:
            raise Usage(
                self.name,
                f"cannot be the {role}: only what needs no installation runs there",
                "install xen2kvm there, or run this on that host and pull",
            )
        try:
            path.encode()
        except UnicodeEncodeError:
            raise Usage(shown(path), "is no UTF-8", "give the far device a plain name") from None
        say(self.link, PassOrder(role=role, path=path, signature=signature, origin=origin))
        device = expect(self.link, FarDevice)
        # It is shown when a digest file is about another one.
        return structs.replace(device, identity=shown(device.identity, MOST_TEXT))

    def ready(self) -> Ready:
        """Wait until the far end has agreed to the pass that was started. Raises what its guards refuse."""
        ready = expect(self.link, Ready)
        return structs.replace(ready, identity=shown(ready.identity, MOST_TEXT))

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the target there, before the pass begins."""
        self.link.send(FrameKind.READ, offset=offset, size=length)
        while (header := self.link.receive(NO_TERMS)).kind is FrameKind.ALIVE:
            pass
        if header.kind is not FrameKind.BYTES or (header.offset, header.size) != (offset, length):
            raise Violation(f"a frame {header.kind.name} for a read")
        return bytes(self.link.payload(header))

    def _now(self) -> tuple[int, int]:
        return self.moment()

    def _meet(self) -> Hello:
        try:
            self._greet()
            hashes = tuple(known.name for known in HASHES)
            say(self.link, Hello(protocol=PROTOCOL, hashes=hashes, codecs=CODECS, boot=boot()))
            self.crew.start("beat", lambda: self.link.beat(self._now))
            hello = await_hello(self.link)
            self.link.deadline = None
            if isinstance(self._channel, TlsChannel):
                self._move_beside(self._channel, hello)
        except Lost as error:
            raise self._not_met(error) from error
        return hello

    def _move_beside(self, channel: TlsChannel, hello: Hello) -> None:
        """Go on over TLS streams, if there can be any; say why if not."""
        # Slow to load, and for this only.
        from blocksync.remote import tls_upgrade  # noqa: PLC0415

        tls = channel.tls
        address = tls.address()
        try:
            if TLS not in hello.carriers:
                raise tls_upgrade.NoStreams("there is no blocksync that has them")
            if address is None:
                raise tls_upgrade.NoStreams("it is behind a proxy or jump host")
            tls_upgrade.move_near(self.link, address, channel.keep, streams=tls.streams, port=tls.port)
        except tls_upgrade.NoStreams as why:
            tls.give_up(str(why))

    def _greet(self) -> None:
        greeting = self._greeting()
        if greeting == LOADER_GREETING:
            self.link.send_program(bootstrap.program())
            greeting = self._greeting()
        if greeting != GREETING:
            raise Failed(
                self.name,
                f"says {shown_bytes(greeting)!r} instead of a greeting",
                "see that its shell prints nothing for commands (`ssh HOST true` must be silent)",
            )
        # From here on, who is there says so.
        self.link.patience = self._patience
        self.link.greet()

    def _greeting(self) -> bytes:
        greeting = bytearray(len(GREETING))
        self.link.take(memoryview(greeting))
        return bytes(greeting)

    def _status(self) -> int | None:
        """The far command's exit status; None while it runs."""
        with suppress(TimeoutError):
            return self._channel.wait(_END_SECONDS)
        return None

    def _not_met(self, error: Lost) -> Failed:
        """What is wrong with a far end that ended before it said anything."""
        status = self._status()
        if status == bootstrap.NOTHING_THERE:
            return Failed(
                self.name, "has neither blocksync nor a Python from 2.6 on", "install xen2kvm there"
            )
        said = self._channel.stderr_tail()
        if status in (None, BROKEN) and tells_of_the_link_alone(said):
            return Lost(self.name, f"{error.cause} before its agent answered", heard_out=True)
        words = shown(" ".join(said[-_LAST_WORDS:].split()), _LAST_WORDS)
        return Failed(self.name, words or error.cause, "see that the command `ssh HOST true` works")
