"""A mounted guest: its files read, edits applied to them, and edits taken back.

Nothing here follows a link out of the guest (see `inside`). What an edit replaces or takes away stays beside
it under another name, and a record inside the guest says what was done, so that `restore` can undo it.
"""

import contextlib
import errno
import json
import os
import posixpath
import stat
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from blocksync.errors import Failed
from blocksync.foreign import shown
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.inside import final_path, is_absent, open_folder, open_regular, real_path
from orchestrate.guest.files.reading import LARGEST_FILE

SUFFIX = ".xen2kvm-orig"
"""What the name of a kept original ends in."""

RECORD = "/etc/xen2kvm.changes"
"""The record inside the guest: a JSON object a line, {"change", "path", "kept", "reason"}."""

# Folders in which programs read every file that is not hidden: a kept original must not be read as well.
_READ_WHOLE = frozenset(
    {"/etc/event.d", "/etc/modprobe.d", "/etc/network/interfaces.d", "/etc/systemd/system/getty.target.wants"}
)
_TEMPORARY = ".xen2kvm-new"
_KINDS = frozenset({"replaced", "taken away", "created", "folder"})
_LONGEST_PATH = 4096


@dataclass(frozen=True, slots=True)
class _Change:
    """One line of the record. `kept` is the path of the original; empty for what was not there before."""

    change: str  # "replaced", "taken away", "created" or "folder"
    path: str
    kept: str
    reason: str


class GuestTree:
    """A guest mounted at `root` on this host. Implements `Reading`; close it before unmounting."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the guest's root, so that it can be unmounted. Closing twice is harmless."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def read(self, path: str) -> bytes | None:
        """As `Reading.read`. A FIFO, a socket or a device counts as absent and is never opened."""
        with _named(path):
            descriptor = open_regular(self._root, path)
            if descriptor is None:
                return None
            with os.fdopen(descriptor, "rb") as file:
                content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise Failed(
                f"{path} in the guest",
                f"it is larger than {LARGEST_FILE} bytes, no configuration file is",
                "see what filled it, and shorten it while the guest runs under Xen",
            )
        return content

    def names(self, directory: str) -> tuple[str, ...]:
        """As `Reading.names`."""
        with _named(directory):
            try:
                folder = open_folder(self._root, directory)
            except OSError as error:
                if is_absent(error):
                    return ()
                raise
            try:
                return tuple(sorted(os.listdir(folder)))  # noqa: PTH208 (a descriptor, not a path)
            finally:
                os.close(folder)

    def apply(self, edits: Iterable[Edit]) -> None:
        """Make `edits`, in order; one that replaces or takes away is durable before the next, what is new is
        durable once the guest is unmounted.

        Every place is looked at before the first is written. The original is kept as NAME.xen2kvm-orig
        the first time (hidden where every visible file counts) and never overwritten. A link to a file
        is kept and the file that it leads to replaced; a link that is taken away goes itself.
        Mode, owner and extended attributes stay with the name. Raises `Failed`.
        """
        wanted = tuple(edits)
        originals = {change.path for change in self._note(wanted) if change.kept}
        for edit in wanted:
            with _named(edit.path):
                if edit.content is None:
                    self._take_away(real_path(self._root, edit.path), originals)
                else:
                    self._replace(edit, edit.content, originals)

    def restore(self) -> tuple[str, ...]:
        """Undo every recorded change, the last one first, and drop the record.

        Returns the paths that are as they were before the first `apply`. Raises `Failed`.
        """
        restored = []
        for change in reversed(self._record()):
            with _named(change.path):
                self._undo(change)
            restored.append(change.path)
        if restored:
            with _named(RECORD), self._folder(RECORD) as (folder, name):
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
        return tuple(restored)

    def _note(self, edits: Iterable[Edit]) -> tuple[_Change, ...]:
        """Put what the edits will do into the record, before they do it; the first of a path counts.

        The whole record.
        """
        earlier = self._record()
        known = {change.path: change for change in earlier}
        for edit in edits:
            with _named(edit.path):
                for change in self._changes(edit):
                    known.setdefault(change.path, change)
        if len(known) > len(earlier):
            lines = "".join(json.dumps(_fields(change)) + "\n" for change in known.values())
            with _named(RECORD):
                self._make_folders(posixpath.dirname(RECORD))
                self._write(RECORD, lines.encode(), 0o644, durable=True)
        return tuple(known.values())

    def _changes(self, edit: Edit) -> Iterator[_Change]:
        """What `edit` will do to the guest as it is. Raises `Failed` for what is no regular file."""
        if edit.content is None:
            path, allowed = real_path(self._root, edit.path), {stat.S_IFREG, stat.S_IFLNK}
        else:
            path, allowed = final_path(self._root, edit.path), {stat.S_IFREG}
        kind = self._kind(path)
        if kind is not None and stat.S_IFMT(kind) not in allowed:
            raise Failed(
                f"{edit.path} in the guest",
                "it is neither a regular file nor absent",
                "look at it under Xen, or leave this fix-up out of the plan",
            )
        if edit.content is None:
            if kind is not None:
                yield _Change("taken away", path, _kept(path), edit.reason)
        elif kind is not None:
            yield _Change("replaced", path, _kept(path), edit.reason)
        else:
            missing = self._missing_folders(posixpath.dirname(path))
            yield from (_Change("folder", folder, "", edit.reason) for folder in missing)
            yield _Change("created", path, "", edit.reason)

    def _kind(self, path: str) -> int | None:
        """The mode of what `path` names, links in its last place not followed; None when absent."""
        try:
            with self._folder(path) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except OSError as error:
            if is_absent(error):
                return None
            raise

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[tuple[int, str]]:
        """The open folder that holds `path`, and the path's last name."""
        parent, name = posixpath.split(path)
        if name in ("", ".", ".."):
            # `..` of the guest's root, handed to the kernel by itself, would be the host's folder.
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        folder = open_folder(self._root, parent or "/")
        try:
            yield folder, name
        finally:
            os.close(folder)

    def _replace(self, edit: Edit, content: bytes, originals: Container[str]) -> None:
        path = final_path(self._root, edit.path)
        self._make_folders(posixpath.dirname(path))
        if path in originals:
            self._keep(path)
        # Hundreds of files of a boot loader are new: waiting for the disk after each takes seconds.
        self._write(path, content, edit.mode, durable=path in originals)

    def _take_away(self, path: str, originals: Container[str]) -> None:
        if self._kind(path) is None:
            return
        if path in originals:
            self._keep(path)
        with self._folder(path) as (folder, name):
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    def _keep(self, path: str) -> None:
        """Give an original a second name, unless it has one already."""
        with self._folder(path) as (folder, name), contextlib.suppress(FileExistsError, FileNotFoundError):
            kept = posixpath.basename(_kept(path))
            os.link(name, kept, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            os.fsync(folder)

    def _write(self, path: str, content: bytes, mode: int | None, *, durable: bool) -> None:
        with self._folder(path) as (folder, name):
            temporary = f".{name}{_TEMPORARY}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)  # of a run that was cut short
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    self._dress(file.fileno(), folder, path, mode)
                    file.write(content)
                    file.flush()
                    if durable:
                        os.fsync(file.fileno())
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            if durable:
                os.fsync(folder)

    def _dress(self, descriptor: int, folder: int, path: str, mode: int | None) -> None:
        """Owner, mode and extended attributes of the file at `path`, or those that a new file needs."""
        old = open_regular(self._root, path)
        if old is None:
            os.fchmod(descriptor, 0o644 if mode is None else mode)
            _copy_attributes(folder, descriptor, only="security.selinux")
            return
        try:
            state = os.fstat(old)
            os.fchown(descriptor, state.st_uid, state.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(state.st_mode))
            _copy_attributes(old, descriptor)
        finally:
            os.close(old)

    def _missing_folders(self, path: str) -> tuple[str, ...]:
        """The folders that `path` lacks, the outermost first."""
        try:
            os.close(open_folder(self._root, path))
        except FileNotFoundError:
            return (*self._missing_folders(posixpath.dirname(path)), path)
        return ()

    def _make_folders(self, path: str) -> None:
        for missing in self._missing_folders(path):
            with self._folder(missing) as (folder, name):
                os.mkdir(name, 0o755, dir_fd=folder)
                os.chmod(name, 0o755, dir_fd=folder)  # whatever the umask says
                os.fsync(folder)

    def _record(self) -> tuple[_Change, ...]:
        lines = (self.read(RECORD) or b"").splitlines()
        try:
            return tuple(_change(json.loads(line)) for line in lines)
        except (ValueError, TypeError, RecursionError) as error:
            raise Failed(
                f"{RECORD} in the guest",
                f"it is not this program's record of changes ({shown(str(error))})",
                f"compare each NAME{SUFFIX} with NAME in the guest by hand, remove {RECORD} there, and run "
                "the same command again",
            ) from error

    def _undo(self, change: _Change) -> None:
        try:
            with self._folder(change.path) as (folder, name):
                if change.change == "folder":
                    os.rmdir(name, dir_fd=folder)
                elif change.change == "created":
                    os.unlink(name, dir_fd=folder)
                else:
                    kept = posixpath.basename(change.kept)
                    os.rename(kept, name, src_dir_fd=folder, dst_dir_fd=folder)
                    # Two names of one file: rename(2) leaves both. The edit itself was never made.
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(kept, dir_fd=folder)
                os.fsync(folder)
        except OSError as error:
            # A change that was noted and never made, or a folder that the guest has come to use.
            if not is_absent(error) and error.errno != errno.ENOTEMPTY:
                raise


def _kept(path: str) -> str:
    folder, name = posixpath.split(path)
    return posixpath.join(folder, ("." if folder in _READ_WHOLE else "") + name + SUFFIX)


def _fields(change: _Change) -> dict[str, str]:
    return {"change": change.change, "path": change.path, "kept": change.kept, "reason": change.reason}


def _change(fields: object) -> _Change:
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise TypeError("a line is not an object of strings")
    change = _Change(**fields)
    for path in (change.path, change.kept):
        # What no system call takes, and what nobody could look at by hand.
        if "\0" in path or len(os.fsencode(path)) > _LONGEST_PATH:
            raise ValueError("a path in it is none")
    if change.change not in _KINDS or not change.path.startswith("/"):
        raise ValueError("a line names no change")
    return change


def _copy_attributes(source: int, target: int, *, only: str = "") -> None:
    """Extended attributes of one open file to another: ACLs, the SELinux label, capabilities."""
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        if not only or name == only:
            os.setxattr(target, name, os.getxattr(source, name))


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Say of every system call that fails which of the guest's files it was about."""
    try:
        yield
    except OSError as error:
        raise Failed(
            f"{shown(path)} in the guest",
            error.strerror or str(error),
            "check the guest's filesystem (fsck) and that it has room and is mounted for writing",
        ) from error
