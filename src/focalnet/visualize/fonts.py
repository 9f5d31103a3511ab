"""Text in every script: whatever font of the system has the letters, and their codes where none has them.

The font that comes with matplotlib has Latin, Greek, Cyrillic, Hebrew, Arabic and many signs. Other letters are looked
for in the fonts of the system (fontconfig, else matplotlib's list of folders) when the first one is drawn. A text is
drawn in runs, each in the first font that has it; letters that no font has are written as \\u732b, which is told once.

Letters of Arabic or Hindi change with their neighbours and their order. Pillow and matplotlib (from 3.11) see to it
where they have Raqm; without it, such letters count as missing: their shapes would be wrong.
"""

import logging
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont, features

log = logging.getLogger(__name__)

SHAPED = range(0x0590, 0x1100)
"""Letters that change with their neighbours or run from right to left: Hebrew to Georgian, with all of India's."""
PLAIN_WITHIN = ((0x0E00, 0x0E80), (0x10A0, 0x1100))
"""Of them, what does not: Thai, Georgian."""


class Letters:
    """Text of one size, on images.

    Args:
        size: in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.base = font(None, size)
        self.ascent, self.descent = self.base.getmetrics() if hasattr(self.base, "getmetrics") else (size, size // 4)

    @property
    def height(self) -> int:
        """Of a line."""
        return self.ascent + self.descent

    def length(self, text: str) -> float:
        """Width of a text in pixels."""
        return sum(font(path, self.size).getlength(part) for path, part in runs(text))

    def fitting(self, text: str, width: float) -> str:
        """The text, shortened to `width` pixels."""
        text = written(text)
        while text and self.length(text) > width:
            text = text.removesuffix("…")[:-1].rstrip() + "…" if len(text) > 1 else ""
        return text

    def draw(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, ink: Any, anchor="la") -> None:
        """Draw a text: from its upper left corner, or, with the anchor "lm", from the middle of its left end."""
        parts = list(runs(text))
        if len(parts) == 1 and parts[0][0] is None:
            draw.text(place, parts[0][1], ink, self.base, anchor)
            return
        x, y = place
        y += self.ascent if anchor == "la" else (self.ascent - self.descent) / 2
        for path, part in parts:
            used = font(path, self.size)
            draw.text((x, y), part, ink, used, "ls")
            x += used.getlength(part)


@lru_cache(64)
def font(path: str | None, size: int) -> Any:
    """A font of Pillow's; None is the one that comes with matplotlib: Pillow's own has no letters beyond ASCII."""
    path = path or base_path()
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


@cache
def base_path() -> str | None:
    """The font file that comes with matplotlib; None without matplotlib."""
    found = find_spec("matplotlib")
    folders = found.submodule_search_locations if found else None
    path = Path(next(iter(folders)), "mpl-data/fonts/ttf/DejaVuSans.ttf") if folders else None
    return str(path) if path and path.exists() else None


def runs(text: str) -> Iterator[tuple[str | None, str]]:
    """The text, as it can be written, in parts: the font file of each, None for the usual one, and its letters.

    Marks, blanks and punctuation stay in the font of what is before them, so that words keep their order.
    """
    current, part = None, ""
    for letter in written(text):
        path = current if part and font_of(letter) == MISSING else font_of(letter)
        if part and path != current and unicodedata.category(letter)[0] in "MZPC" and has(current, letter):
            path = current
        if part and path != current:
            yield current, part
            part = ""
        current, part = path, part + letter
    yield current, part


def written(text: str) -> str:
    """The text with the codes of the letters that no font has, and blanks for line breaks; told once per letter."""
    text = text.encode(errors="replace").decode()  # names of folders may hold halves of characters
    text = "".join(_written(letter) for letter in text)
    leftwards = any(unicodedata.bidirectional(letter) in LEFTWARDS for letter in text)
    return _directed(text) if leftwards else text


def _directed(text: str) -> str:
    """A line from left to right that holds words from right to left; numbers after these stay on their right."""
    line, strong = "" if text[0] == RIGHTWARDS else RIGHTWARDS, "L"
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        if kind == "EN" and strong in LEFTWARDS:
            line, strong = line + RIGHTWARDS, "L"
        line, strong = line + letter, kind if kind in ("L", *LEFTWARDS) else strong
    return line


def _written(letter: str) -> str:
    if letter.isspace() or (letter.isascii() and letter.isprintable()):
        return " " if letter.isspace() else letter
    if font_of(letter) != MISSING:
        return letter
    if unicodedata.category(letter) == "Cf":  # it has no shape
        return ""
    simple = unicodedata.normalize("NFKC", letter)
    if simple != letter and font_of(simple[0]) != MISSING:
        return simple
    code = letter.encode("ascii", "backslashreplace").decode()
    _tell(unicodedata.name(letter, "A LETTER").split()[0], letter, code)
    return code


def _tell(script: str, letter: str, code: str) -> None:
    if script in _told:
        return
    _told.add(script)
    package = "fonts-noto-cjk" if script in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL") else "fonts-noto"
    log.warning(
        "no font of this system has %s (%s): names with such letters are drawn with their codes, %s. Install a font, "
        "for example the package %s.", letter, script if script == "CJK" else script.title(), code, package,
    )  # fmt: skip


RIGHTWARDS = "\u200e"
"""The mark that what follows runs from left to right."""
LEFTWARDS = ("R", "AL")
"""Letters from right to left."""
_told: set[str] = set()
MISSING = "missing"
"""In place of a font file: no font has a letter."""


@cache
def font_of(letter: str) -> str | None:
    """The first font file that has a letter; None for the usual font, `MISSING` where there is none."""
    if letter.isascii() or base_path() is None:
        return None if letter.isascii() else MISSING
    if _is_shaped(letter) and not features.check("raqm"):
        return MISSING
    if has(None, letter):
        return None
    for path in _chosen:
        if has(path, letter):
            return path
    for path in candidates(letter):
        if has(path, letter) and _opens(path):
            _chosen.append(path)
            return path
    return MISSING


_chosen: list[str] = []
"""Font files in use besides the usual one: one font for all letters of a script."""


def has(path: str | None, letter: str) -> bool:
    """Whether a font file, None for the usual one, has a letter."""
    return ord(letter) in _letters(path or base_path() or "")


@lru_cache(256)
def _letters(path: str) -> frozenset[int]:
    if not path:
        return frozenset(range(128))
    try:
        from matplotlib.ft2font import FT2Font

        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError, ImportError):  # no font, or a broken one
        return frozenset()


def candidates(letter: str) -> Sequence[str]:
    """Font files of the system that may have a letter, plain upright ones first."""
    found: list[str] = []
    if lister := shutil.which("fc-list"):
        try:
            command = [lister, f":charset={ord(letter):x}", "--format", "%{file}\\n"]
            found = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.splitlines()
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            found = []
    if not found:
        found = _all_fonts()
    return sorted(set(found), key=_rank)


@cache
def _all_fonts() -> list[str]:
    from matplotlib import font_manager

    return font_manager.findSystemFonts()


def _rank(path: str) -> tuple[bool, bool, str]:
    name = Path(path).stem.lower()
    odd = any(word in name for word in ("bold", "italic", "oblique", "black", "thin", "light", "mono", "serif"))
    return odd, "regular" not in name, name


def _opens(path: str) -> bool:
    """Whether Pillow draws with a font file; those of colored signs come in one size only."""
    try:
        return bool(font(path, 20).getlength("a") or True)
    except (OSError, ValueError):
        return False


def _is_shaped(letter: str) -> bool:
    code = ord(letter)
    return code in SHAPED and not any(first <= code < last for first, last in PLAIN_WITHIN)


def families(text: str) -> list[str]:
    """Names of the fonts of a text, for matplotlib, which is made to know them; empty where the usual one will do."""
    paths = [path for path in dict.fromkeys(font_of(letter) for letter in text) if path not in (None, MISSING)]
    if not paths:
        return []
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in paths:
        if path not in known:
            font_manager.fontManager.addfont(path)
    names = {entry.fname: entry.name for entry in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *dict.fromkeys(names[path] for path in paths)]


def plottable(text: str) -> str:
    """`written`, for matplotlib: before 3.11 it puts letters beside each other as they come."""
    import matplotlib as mpl

    if mpl.__version_info__ < (3, 11):
        text = "".join(
            letter.encode("ascii", "backslashreplace").decode() if _is_shaped(letter) else letter for letter in text
        )
    return written(text)
