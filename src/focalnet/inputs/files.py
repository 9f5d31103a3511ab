"""The files that a user means: names, folders, globs, addresses, or a list on standard input."""

import glob
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from focalnet import inputs
from focalnet.errors import UserError
from focalnet.inputs.folders import is_ignored, walk
from focalnet.inputs.video import VIDEO_EXTENSIONS, is_live, is_video


def find_images(sources: Iterable[str]) -> list[str]:
    """`find_files` for images and videos."""
    return find_files(sources, "image")


def find_files(sources: Iterable[str], kind: str, unreadable: dict[str, UserError] | None = None) -> list[str]:
    """Files meant by what a user wrote.

    Args:
        sources: files, folders (searched all the way down, without what `folders` ignores), globs, URLs, cameras and
            streams (`inputs.video`), or `-` for a list on standard input.
        kind: the kind of input to look for in folders; beside images, videos.
        unreadable: takes in, by its name, what is no file, and why; the others are then found all the same.

    Raises:
        UserError: without `unreadable`, something names no file.
    """
    suffixes: frozenset[str] = inputs.INPUTS[kind].suffixes
    noun = inputs.noun_of(inputs.INPUTS[kind])
    known = suffixes | VIDEO_EXTENSIONS if kind == "image" else suffixes
    found: list[str] = []

    def refuse(name: str, sentence: str) -> None:
        error = UserError(sentence)
        if unreadable is None:
            raise error
        unreadable[name] = error

    for source in sources:
        try:
            names = _names(source, noun, known)
        except UserError as error:
            refuse(source, str(error))
            continue
        for name in names:
            if what := _other_than_a_file(name):
                article = "an" if noun[0] in "aeiou" else "a"
                refuse(name, f"{name} is {what}, not a file of {article} {noun}; leave it out.")
            else:
                found.append(name)
    return found


def is_address(source: str) -> bool:
    """Whether a source is an http(s) address."""
    return source.startswith(("http://", "https://"))


def _names(source: str, noun: str, suffixes: frozenset[str]) -> list[str]:
    if source == "-":
        if names := [line.strip() for line in sys.stdin if line.strip()]:
            return names
        raise UserError("Standard input names no file: - takes a list with one name per line.")
    if os.path.isdir(source):
        if names := _inside(source, suffixes):
            return names
        raise UserError(f"The folder {source} holds no {noun}s ({', '.join(sorted(suffixes))}).")
    if is_address(source) or os.path.lexists(source) or (suffixes >= VIDEO_EXTENSIONS and is_live(source)):
        return [source]
    matches = ((match, os.path.isdir(match)) for match in _matches(source))
    if names := [name for match, folder in matches for name in (_inside(match, suffixes) if folder else [match])]:
        return names
    raise UserError(f"{source} is no file, folder, URL or pattern that matches anything (seen from {Path.cwd()}).")


def _inside(folder: str, suffixes: frozenset[str]) -> list[str]:
    """What has these endings in a folder and in those below it, in the order of the names: files, and what is none."""
    found: list[str] = []
    found += [os.path.join(*place) for place in walk(folder, suffixes, found.append)]
    paths = (Path(path) for path in found)
    meant = (path for path in sorted(paths) if path.suffix.lower() in suffixes and not is_ignored(path.name))
    return [str(path) for path in meant if path.suffix.lower() not in VIDEO_EXTENSIONS or is_video(path)]


def _matches(pattern: str) -> list[str]:
    """What a pattern matches, without what is ignored; a folder that links lead to again and again counts once."""
    meant, seen = Path(pattern).parts, {}
    for match in sorted(glob.glob(pattern, recursive=True)):
        folder, name = os.path.split(match)
        if not any(is_ignored(part) and part not in meant for part in Path(match).parts):
            seen.setdefault((os.path.realpath(folder), name), match)
    return list(seen.values())


def _other_than_a_file(name: str) -> str | None:
    """What stands under a name that is no file and would never end, or is not there; None where reading tells it."""
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return "a link that leads nowhere" if os.path.islink(name) else None
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode))
