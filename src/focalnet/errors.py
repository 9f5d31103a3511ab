"""The one exception for mistakes that the user can mend.

The library raises `UserError` (a `ValueError`) with a sentence that says what is wrong, where, and how to
mend it; the command line prints that sentence and exits with 2. Every other exception is a bug of ours.
"""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input: its message is one sentence with what, where and how to mend."""


class MissingExtraError(UserError, ImportError):
    """A feature needs packages that an optional extra installs."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the optional packages of the extra [{extra}]: pip install 'focalnet[{extra}]'."
        )


class BadFileError(UserError):
    """A sample that cannot be read; the message names it."""

    def __init__(self, message: str) -> None:
        # A DataLoader raises a worker's exception again with the whole traceback as its message: keep the sentence.
        super().__init__(message.rstrip().rsplit(f"{type(self).__name__}: ", 1)[-1])


class OtherModelError(UserError):
    """Data that the network cannot learn from, and `model`, the name of one that can."""

    def __init__(self, message: str, model: str) -> None:
        super().__init__(message)
        self.model = model


def first_line(error: BaseException) -> str:
    """What an exception of another library says, in one line and without the codes of colors."""
    return (re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__).splitlines()[0]


def counted(count: int, plural: str) -> str:
    """A number with what is counted, for a sentence: "2 boxes that have no area", "1 box that has no area".

    Args:
        count: how many.
        plural: what, begun by its noun, which a word or two may stand before; a verb may follow with "that".
    """
    if count != 1:
        return f"{count} {plural}"
    head, comma, rest = plural.partition(",")
    words = head.split(" ")
    place = next((i for i, word in enumerate(words) if re.fullmatch(r"\w+[^us\W]s", word)), None)
    if place is not None:
        words[place] = _singular(words[place])
        verb = place + 2 + (words[place + 2 : place + 3] == ["only"])
        if words[place + 1 : place + 2] == ["that"] and verb < len(words):
            words[verb] = agreeing(1, words[verb])
    return f"1 {' '.join(words)}{comma}{rest}"


def agreeing(count: int, verb: str) -> str:
    """The verb of so many things: "are" or "is", "occur" or "occurs"."""
    if count != 1 or verb == "cannot":
        return verb
    usual = f"{verb}es" if verb.endswith(("ch", "sh", "s", "x")) else f"{verb}s"
    return {"are": "is", "have": "has", "do": "does"}.get(verb, usual)


def _singular(noun: str) -> str:
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    return noun[:-2] if noun.endswith(("xes", "sses", "shes", "ches")) else noun[:-1]


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that is not in `known`, which suggests the nearest ones.

    Args:
        what: the kind of thing, for example "model".
        name: what the user wrote.
        known: the names that exist.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(known)}."
    return UserError(f"There is no {what} {name!r}; {hint}")
