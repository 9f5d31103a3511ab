"""The one exception for mistakes that the user can mend.

The library raises `UserError` (a `ValueError`) with a sentence that says what is wrong, where, and how to
mend it; the command line prints that sentence and exits with 2. Every other exception is a bug of ours.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input: its message is one sentence with what, where and how to mend."""


class MissingExtraError(UserError, ImportError):
    """A feature needs packages that an optional extra installs."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the optional packages of the extra [{extra}]: pip install 'focalnet[{extra}]'."
        )


class OtherModelError(UserError):
    """Data that the network cannot learn from, and `model`, the name of one that can."""

    def __init__(self, message: str, model: str) -> None:
        super().__init__(message)
        self.model = model


def first_line(error: BaseException) -> str:
    """What an exception of another library says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
