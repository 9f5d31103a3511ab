"""What stands in hostile files: values of JSON that nobody means, damage of bytes, and files that are none."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RAW = {
    "NaN": "NaN", "Infinity": "-Infinity", "digits": "9" * 100_000, "huge": "1e999", "long": "0." + "3" * 5000,
    "surrogate": '"\\ud800"', "deep": "[" * 100_000 + "]" * 100_000, "deep object": '{"a":' * 2000 + "0" + "}" * 2000,
}  # fmt: skip
"""What Python would not write, by a name that stands for it until the text is made."""
PLAIN = [
    None, True, False, 0, 1, -1, 2, 7, 0.5, -0.0, 1e308, -1e308, 1e-308, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30,
    10**9, "", "x", "0", "NaN", "-1", "1e999", "a\nb", "é\u202e", "x" * 1000, "../../../etc/passwd", "/dev/zero",
    "/dev/null", "\x00", "\x1b[2J", "<script>alert(1)</script>", [], {}, [[]], [None], [0] * 1000, {"a": 1}, {"": {}},
    [1, 2], ["x"], [0.5, 0.5], [-1, -1, -1, -1], [10**6] * 4, [1e300, 1e300],
]  # fmt: skip
MARK = "\ue000"


def value(rng: random.Random) -> Any:
    """One value that nobody means; the raw ones are marked."""
    if rng.random() < 0.3:
        return MARK + rng.choice(list(RAW))
    return rng.choice(PLAIN)


def dumps(content: Any) -> str:
    """JSON of a content with marked values."""
    text = json.dumps(content)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(MARK + name), raw)
    return text


def places(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths to everything inside."""
    yield path
    if isinstance(content, dict):
        for name, part in content.items():
            yield from places(part, (*path, name))
    elif isinstance(content, list):
        for number, part in enumerate(content[:3]):
            yield from places(part, (*path, number))


def spoiled(content: Any, rng: random.Random, most: int = 2) -> Any:
    """A copy of JSON with some of it changed, removed, added or doubled."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.randint(1, most)):
        path = rng.choice(list(places(content)))
        if not path:
            if rng.random() < 0.1:
                return value(rng)
            continue
        target = content
        for step in path[:-1]:
            target = target[step]
        how = rng.random()
        if how < 0.7:
            target[path[-1]] = value(rng)
        elif how < 0.85:
            del target[path[-1]]
        elif isinstance(target, dict):
            target[rng.choice(["", "x", "said", "__class__", "self", path[-1] + "s"])] = value(rng)
        else:
            target += target[:1] * rng.choice([1, 3, 100])
    return content


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes with a few of them changed, cut out, repeated, or cut off."""
    content = bytearray(content or b"\0")
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        place = rng.randrange(len(content) + 1)
        match rng.randrange(6):
            case 0:
                content[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                content[place : place + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"]
                )
            case 2:
                content[place : place + rng.randint(1, 50)] = b""
            case 3:
                content[place:place] = content[place : place + rng.randint(1, 50)]
            case 4:
                content[place:place] = rng.randbytes(rng.randint(1, 20))
            case 5:
                del content[max(8, place) :]
        content = content or bytearray(b"\0")
    return bytes(content)


NO_FILES = (
    "empty", "pipe", "zero", "null", "folder", "loop", "dead link", "noise", "text", "sparse", "utf-16", "latin-1",
    "nothing but zeros", "one line", "missing",
)  # fmt: skip


def no_file(path: Path, kind: str, rng: random.Random) -> None:
    """Put something at `path` that is not what a file of this name should be."""
    if path.is_symlink() or path.exists():
        path.unlink()
    match kind:
        case "empty":
            path.touch()
        case "pipe":
            os.mkfifo(path)
        case "zero":
            path.symlink_to("/dev/zero")
        case "null":
            path.symlink_to("/dev/null")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "dead link":
            path.symlink_to("nowhere")
        case "noise":
            path.write_bytes(rng.randbytes(rng.randint(1, 3000)))
        case "text":
            path.write_text("<html>404 not found</html>\n" * 20)
        case "sparse":
            with open(path, "wb") as file:
                file.truncate(2**32)
        case "utf-16":
            path.write_bytes('{"a": "b"}\n0 0.5 0.5 0.1 0.1\n'.encode("utf-16"))
        case "latin-1":
            path.write_bytes('{"a": "é"}\nä 0.5\n'.encode("latin-1"))
        case "nothing but zeros":
            path.write_bytes(bytes(5000))
        case "one line":
            path.write_text("0 " * 2_000_000)
        case "missing":
            pass
