"""Files and folders as people and other tools leave them: one rule for what is ignored, and one for written paths.

ignored     names that begin with a dot (.git, .ipynb_checkpoints, ._0001.jpg of macOS), and what systems lay beside
            the files of a user: __MACOSX, Thumbs.db, desktop.ini, @eaDir and the bins
paths       as they are written; else with backslashes or %20, as an address, or by their last parts: see `locate`
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from focalnet.errors import UserError

SYSTEM = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"})
"""Names, in lower case, of what systems lay beside the files of a user."""

UNREAD = frozenset(
    ".heic .heif .jxl .psd .svg .eps .tga .exr .hdr .dng .cr2 .cr3 .nef .arw .orf .raf .rw2".split()  # noqa: SIM905
)
"""Endings, in lower case, of images that are not read: files that were meant and are not there."""
DEEPEST = 16
"""Most parts of a name that are tried without those before them."""


def cache_folder(name: str) -> Path:
    """Where the library keeps what it made, and can make again: $XDG_CACHE_HOME/focalnet/NAME, else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "focalnet" / name


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name, without its path, is never data."""
    return (name.startswith(".") and name.strip(".") != "") or name.lower() in SYSTEM


def folders_in(root: Path) -> list[Path]:
    """The folders in a folder that are not ignored, in the order of their names.

    Raises:
        UserError: it cannot be read.
    """
    return sorted(Path(entry.path) for entry in _entries(root) if _is_folder(entry))


MACHINE = ("/proc/", "/sys/", "/dev/")
"""Where no data lies: a link into it leads to every file of the machine."""


def walk(
    folder: str | Path, suffixes: Collection[str], left_out: Callable[[str], object] = lambda path: None
) -> Iterator[tuple[str, str]]:
    """(folder, name) of the files with one of `suffixes`, in lower case, at any depth; in no order.

    Links are followed, each folder is visited once. What is ignored, has another suffix, or is no file (a link to
    nothing, a pipe) goes to `left_out`, by its path.

    Raises:
        UserError: a folder cannot be read.
    """
    seen, waiting = set(), [str(folder)]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above itself
            continue
        if f"{real}/".startswith(MACHINE):
            left_out(place)
            continue
        seen.add(real)
        for entry in _entries(place, left_out):
            if _is_folder(entry):
                waiting.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in suffixes and _is_file(entry):
                yield place, entry.name
            else:
                left_out(entry.path)


def files_in(folder: str | Path, suffixes: Collection[str]) -> list[Path]:
    """The files of `walk`, in the order of their paths."""
    return sorted(Path(place, name) for place, name in walk(folder, suffixes))


def _entries(folder: str | Path, left_out: Callable[[str], object] = lambda path: None) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_ignored(entry.name):
                    yield entry
                elif not _is_folder(entry):
                    left_out(entry.path)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read ({error.strerror}): check its permissions.") from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def locate(
    names: Sequence[str], roots: Sequence[str | Path], note: Callable[[str, str], object] = lambda kind, example: None
) -> list[str | None]:
    """The files that names in lists, JSON and YAML stand for; None where there is none.

    A name is first taken as it is, relative to each of `roots` in turn. Where that is no file, it is read as a path
    of Windows, as an address (file://, http://, Label Studio's ?d=), with %20 for a blank; then its first parts are
    left away, one by one. The last needs care: two names that come down to one file mean two files, and have none.

    Args:
        names: as they are written.
        roots: folders; the likeliest first.
        note: is told, for each name that was not taken as it is, how it was read, and an example.
    """
    found: list[str | None] = [_first([name], roots) for name in names]
    rest: dict[int, str] = {}
    meant: dict[str, set[str]] = {}  # by file of `rest`: what the names say in full
    for index, name in enumerate(names):
        if found[index] is not None:
            continue
        readings = _readings(name)
        found[index] = path = _first(readings, roots)
        if path is not None:
            note(f"names with {_what(name)}, read as a path", f"{name} is {path}")
            continue
        parts = [part for part in readings[-1].split("/") if part not in ("", ".", "..")][-DEEPEST:]
        path = _first(["/".join(parts[start:]) for start in range(1, len(parts))], roots)
        if path is not None:
            rest[index] = path
            meant.setdefault(path, set()).add(readings[-1])
    taken = set(found) if rest else set()
    for index, path in rest.items():
        if len(meant[path]) == 1 and path not in taken:
            note("names whose first folders are not there, found by the rest", f"{names[index]} is {path}")
            found[index] = path
    return found


def is_file(folder: str | Path, name: str) -> bool:
    """Whether there is a file of this name, whatever is written there."""
    try:
        return name != "" and os.path.isfile(os.path.join(folder, name))
    except ValueError:  # a null byte
        return False


def _first(candidates: Sequence[str], roots: Sequence[str | Path]) -> str | None:
    places = ((root, candidate) for candidate in candidates for root in roots)
    return next((os.path.join(*place) for place in places if is_file(*place)), None)


def _readings(name: str) -> list[str]:
    """The paths that a name may mean, the last one the most worked on."""
    path = name.strip()
    readings = [path]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) or "?d=" in path:
        try:
            parts = urlsplit(path)
        except ValueError:
            return readings
        path = parse_qs(parts.query).get("d", [parts.path])[0]
        readings.append(path)
    readings.append(path := path.replace("\\", "/"))
    readings.append(path := re.sub("^[A-Za-z]:", "", unquote(path)))
    return readings


def _what(name: str) -> str:
    if "://" in name or "?d=" in name:
        return "addresses"
    return "backslashes" if "\\" in name else "%20 and the like" if "%" in name else "blanks around them"
