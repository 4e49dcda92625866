"""What the guest's own boot menu gives the kernel: the entry that boots by itself.

Sources: the GRUB legacy manual; the GRUB manual ("Simple configuration handling", blscfg) and what
grub-mkconfig writes; the Boot Loader Specification (type 1); syslinux's documentation; and pygrub's source,
which reads grub.cfg before extlinux.conf before menu.lst, counts the entries of submenus as if there were no
submenus, and adds what the Xen configuration says (root=, extra=, cmdline=) to the entry's arguments.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from orchestrate.guest.boot.kernels import version_key
from orchestrate.guest.files.lines import bodies
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups.default_grub import arguments as of_default_grub

_LEGACY = ("menu.lst", "grub.conf")
_FOLDERS = ("/boot/grub", "/grub")
_FOLDERS_2 = (*_FOLDERS, "/boot/grub2", "/grub2")
_EXTLINUX = (
    "/boot/isolinux/isolinux.cfg",
    "/boot/extlinux.conf",
    "/boot/extlinux/extlinux.conf",
    "/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
)
_ENTRIES = ("/boot/loader/entries", "/loader/entries")
_CMDLINE = "/etc/kernel/cmdline"

_COMMAND = re.compile(r"\s*([A-Za-z][\w-]*)(?:\s*=\s*|\s+|$)(.*)")
_HYPERVISOR = re.compile(r"xen(?:[-.].*)?")
_ENTRY = re.compile(r"\s*(menuentry|submenu)\s+(.*)\{\s*")
_SET = re.compile(r"\s*(?:set\s+)?(\w+)=(.*)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_WORD = re.compile(r"(?:[^\s\"'\\]|\\.|\"(?:[^\"\\]|\\.)*\"|'[^']*')+")
_PIECE = re.compile(r"\\(.)|\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|([^\\\"']+)", re.DOTALL)
_ID = re.compile(r"--id[= ]?|\$\{?menuentry_id_option\}?")
_LINUX = frozenset(["linux", "linux16", "linuxefi"])
_CHAINED = frozenset(["multiboot", "multiboot2", "xen_hypervisor"])


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """A menu's entry: the file that it stands in, its title, and the kernel's arguments as written."""

    path: str
    title: str
    arguments: str

    @property
    def root(self) -> str | None:
        """What the last root= names."""
        named = re.findall(r"(?:^|\s)root=(\S+)", self.arguments)
        return named[-1] if named else None


@dataclass(frozen=True, slots=True)
class _Item:
    """An entry of GRUB's menu with the submenus above it, by position, title and id."""

    places: tuple[tuple[str, ...], ...]
    title: str
    arguments: str | None


def booted(guest: Reading, loader: str, menu: str | None = None) -> MenuEntry | None:
    """The entry that `loader` (pygrub, pv-grub, pv-grub2) boots by itself, None where there is no menu.

    `menu` is the path that PV-GRUB was told to read. Raises what reading raises.
    """
    legacy, second = _legacy(guest, menu), _second(guest, flat="pv-grub" not in loader)
    readers: tuple[Callable[[], MenuEntry | None], ...] = (second, lambda: _extlinux(guest), legacy)
    if loader == "pv-grub":
        readers = (legacy, second)
    found = (entry for read in readers if (entry := read()) is not None)
    return next(found, None) or _last_resort(guest)


def _last_resort(guest: Reading) -> MenuEntry | None:
    """What the next menu will be made of."""
    for path, text in (
        (_CMDLINE, (guest.read(_CMDLINE) or b"").decode(errors="replace").strip()),
        ("/etc/default/grub", of_default_grub(guest)),
    ):
        if text:
            return MenuEntry(path, "", " ".join(text.split()))
    return None


# GRUB legacy


def _legacy(guest: Reading, menu: str | None) -> Callable[[], MenuEntry | None]:
    paths = [f"{folder}/{name}" for folder in _FOLDERS for name in _LEGACY]
    told = re.sub(r"^\([^)]*\)", "", menu or "").split()[:1]
    if told and told[0].startswith("/"):
        paths = [told[0], f"/boot{told[0]}", *paths]

    def read() -> MenuEntry | None:
        return _first(guest, paths, _of_legacy)

    return read


def _of_legacy(guest: Reading, path: str, content: bytes) -> MenuEntry | None:
    default = "0"
    entries: list[tuple[str, list[tuple[str, str]]]] = []
    for command, rest in _commands(content):
        if command == "title":
            entries.append((rest, []))
        elif entries:
            entries[-1][1].append((command, rest))
        elif command == "default":
            default = rest.strip()
    if default == "saved":
        saved = (guest.read(f"{posixpath.dirname(path)}/default") or b"0").split(b"\n")[0]
        default = saved.decode(errors="replace").strip()
    bootable = [(title, _of_lines(lines)) for title, lines in entries]
    wanted = int(default) if default.isascii() and default.isdigit() else 0
    chosen = [each for each in bootable[wanted : wanted + 1] if each[1] is not None] or [
        each for each in bootable if each[1] is not None
    ]
    return MenuEntry(path, chosen[0][0], chosen[0][1] or "") if chosen else None


def _commands(content: bytes) -> Iterator[tuple[str, str]]:
    for body in bodies(content):
        match = _COMMAND.fullmatch(body)
        if match:
            yield match[1].lower(), match[2].strip()


def _of_lines(lines: Iterable[tuple[str, str]]) -> str | None:
    """The arguments on an entry's kernel line, or on the line of Linux where that loads a hypervisor."""
    chained = False
    for command, rest in lines:
        words = [word for word in rest.split() if not word.startswith("--")]
        name = posixpath.basename(words[0]) if words else ""
        if command in _CHAINED or (command == "kernel" and _HYPERVISOR.fullmatch(name)):
            chained = True
        elif command == "kernel" or command in _LINUX or (chained and command in {"module", "module2"}):
            return " ".join(word for word in words[1:] if word != "placeholder")
    return None


# GRUB 2


def _second(guest: Reading, *, flat: bool) -> Callable[[], MenuEntry | None]:
    def of(guest: Reading, path: str, content: bytes) -> MenuEntry | None:
        return _of_second(guest, path, content, flat=flat)

    def read() -> MenuEntry | None:
        return _first(guest, [f"{folder}/grub.cfg" for folder in _FOLDERS_2], of)

    return read


def _of_second(guest: Reading, path: str, content: bytes, *, flat: bool) -> MenuEntry | None:
    folder = posixpath.dirname(path)
    variables = _environment(guest.read(f"{folder}/grubenv") or b"")
    items = tuple(_items(content, variables))
    default = variables.get("default") or "0"
    if any(body.split()[:1] == ["blscfg"] for body in bodies(content)):
        specified = _specified(guest, variables)
        if specified:
            return specified
    bootable = [item for item in items if item.arguments is not None]
    chosen = next((item for item in bootable if _is_chosen(item, default, flat=flat)), None)
    if flat and default.isdigit() and int(default) < len(bootable):
        chosen = bootable[int(default)]
    chosen = chosen or next(iter(bootable), None)
    return MenuEntry(path, chosen.title, chosen.arguments or "") if chosen else None


def _is_chosen(item: _Item, default: str, *, flat: bool) -> bool:
    wanted = default.split(">")
    if flat:
        return wanted[-1] in item.places[-1][1:]
    # What names a submenu means the first entry in it, which is the first that fits.
    return len(wanted) <= len(item.places) and all(
        word in place for word, place in zip(wanted, item.places, strict=False)
    )


def _environment(content: bytes) -> dict[str, str]:
    pairs = (body.partition("=") for body in bodies(content) if not body.startswith("#"))
    return {name: value for name, equals, value in pairs if equals}


def _items(content: bytes, variables: dict[str, str]) -> Iterator[_Item]:
    """The entries, in order; what is set on the way goes into `variables`."""
    open_blocks: list[tuple[str, ...] | None] = []
    counts = [0]
    lines: list[tuple[str, str]] = []
    for body in bodies(content):
        opening = _ENTRY.fullmatch(body)
        if opening:
            words = _words(opening[2], variables)
            title = words[0] if words else ""
            open_blocks.append((str(counts[-1]), title, *_ids(opening[2], variables)))
            counts[-1] += 1
            counts.append(0)
            lines = []
        elif body.rstrip().endswith("{"):
            open_blocks.append(None)
            counts.append(0)
        elif body.strip() == "}" and open_blocks:
            closed = open_blocks.pop()
            counts.pop()
            if closed is not None and lines:
                places = (*(block for block in open_blocks if block is not None), closed)
                yield _Item(places, closed[1], _of_lines(lines))
                lines = []
        elif not open_blocks:
            _note(body, variables)
        elif command := _COMMAND.fullmatch(body):
            words = _words(command[2], variables)
            lines.append((command[1], " ".join(map(_quoted, words))))


def _note(body: str, variables: dict[str, str]) -> None:
    assignment = _SET.fullmatch(body)
    if assignment and "next_entry" not in assignment[2]:
        words = _words(assignment[2], variables)
        variables[assignment[1]] = words[0] if words else ""


def _ids(text: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    parts = _ID.split(text, maxsplit=1)
    return tuple(_words(parts[1], variables)[:1]) if len(parts) > 1 else ()


def _words(text: str, variables: Mapping[str, str]) -> list[str]:
    """The words of a line of GRUB's script, without their quotes. A variable that is not set is nothing."""
    found: list[str] = []
    for match in _WORD.finditer(text):
        if match[0].startswith("#"):
            break
        plain = "".join(_plain(piece, variables) for piece in _PIECE.finditer(match[0]))
        found += plain.split() if match[0].startswith("$") else [plain]
    return found


def _plain(piece: re.Match[str], variables: Mapping[str, str]) -> str:
    escaped, double, single, bare = piece.groups()
    if escaped is not None or single is not None:
        return str(escaped if single is None else single)
    return _expanded(bare if double is None else re.sub(r"\\(.)", r"\1", double), variables)


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)


def _quoted(word: str) -> str:
    """As GRUB hands a word on: one with blanks in quotes."""
    return f'"{word}"' if re.search(r"\s", word) else word


def _specified(guest: Reading, variables: Mapping[str, str]) -> MenuEntry | None:
    """The entry of the Boot Loader Specification that GRUB's blscfg makes the default."""
    names = {name: folder for folder in _ENTRIES for name in guest.names(folder) if name.endswith(".conf")}
    ordered = sorted(names, key=version_key, reverse=True)
    saved = variables.get("saved_entry", "")
    wanted = [name for name in ordered if name.removesuffix(".conf") == saved]
    if not wanted and saved.isdigit():
        wanted = ordered[int(saved) : int(saved) + 1]
    for name in [*wanted, *(name for name in ordered if "rescue" not in name)][:1]:
        path = f"{names[name]}/{name}"
        commands = list(_commands(guest.read(path) or b""))
        options = " ".join(rest for command, rest in commands if command == "options")
        title = next((rest for command, rest in commands if command == "title"), name)
        return MenuEntry(path, title, " ".join(_expanded(options, variables).split()))
    return None


# extlinux


def _extlinux(guest: Reading) -> MenuEntry | None:
    return _first(guest, _EXTLINUX, _of_extlinux)


def _of_extlinux(guest: Reading, path: str, content: bytes) -> MenuEntry | None:
    del guest
    default, everywhere = "", ""
    labels: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] | None = None
    for command, rest in _commands(content):
        if command == "label":
            current = labels.setdefault(rest, [])
        elif command == "menu" and rest.lower() == "default" and labels:
            default = next(reversed(labels))
        elif command in {"default", "ontimeout"}:
            default = rest
        elif current is not None:
            current.append((command, rest))
        elif command == "append":
            everywhere = rest
    title = default if default in labels else next(iter(labels), "")
    if not title:
        return None
    appended = [rest for command, rest in labels[title] if command == "append"]
    text = appended[-1] if appended else everywhere
    # mboot.c32 takes what it loads one after the other: the hypervisor, Linux, its initramfs.
    if " --- " in text:
        text = text.split(" --- ")[1].partition(" ")[2]
    return MenuEntry(path, title, "" if text == "-" else text)


def _first(
    guest: Reading, paths: Iterable[str], read: Callable[[Reading, str, bytes], MenuEntry | None]
) -> MenuEntry | None:
    """What the first of the files that is there says."""
    for path in paths:
        content = guest.read(path)
        if content is not None:
            return read(guest, path, content)
    return None
