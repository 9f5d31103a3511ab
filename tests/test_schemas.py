"""The dataclass that the program uses is the schema of the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from focalnet.errors import UserError
from focalnet.schemas import as_type, build


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str = "x"


@dataclass(frozen=True, kw_only=True)
class Whole:
    size: int
    rate: Annotated[float, "a share"] = 0.5
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    either: int | str | None = None
    flag: bool = False
    part: Part = field(default_factory=Part)
    parts: tuple[Part, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f"size={self.size}; give 1 or more.")


def test_what_fits_is_built():
    fields = {
        "size": 3, "rate": 1, "kind": "b", "pair": [3, 4], "many": [1, 2.5], "either": "x", "flag": True,
        "part": {"name": "y"}, "parts": [{"name": "z"}], "counts": {"a": 1}, "options": {"a": [None]},
    }  # fmt: skip
    assert build(Whole, fields, "it") == Whole(
        size=3, rate=1, kind="b", pair=(3, 4), many=(1, 2.5), either="x", flag=True, part=Part(name="y"),
        parts=(Part(name="z"),), counts={"a": 1}, options={"a": [None]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ([], "c.json holds a list of 0, no object with named fields; mend the file or take another copy."),
        ({}, "c.json lacks size; mend the file or take another copy."),
        ({"size": 1, "sizes": 2}, "There is no field of c.json 'sizes'; did you mean 'size'?"),
        ({"size": 0}, "c.json: size=0; give 1 or more."),
        ({"size": "1"}, "c.json: size is '1', wanted is a whole number; mend the file or take another copy."),
        ({"size": True}, "size is True"),
        ({"size": 1.0}, "size is 1.0"),
        ({"size": 10**30}, "size is 1000000000000000000000000000000, wanted"),
        ({"size": 1, "rate": float("nan")}, "rate is nan, wanted is a number"),
        ({"size": 1, "rate": float("inf")}, "rate is inf"),
        ({"size": 1, "rate": None}, "rate is None"),
        ({"size": 1, "kind": "c"}, "kind is 'c', wanted is 'a' or 'b'"),
        ({"size": 1, "kind": ["a"]}, "kind is a list of 1"),
        ({"size": 1, "pair": [1]}, "pair is a list of 1, wanted is a list of 2"),
        ({"size": 1, "pair": [1, "2"]}, r"pair\[1\] is '2'"),
        ({"size": 1, "many": "abc"}, "many is 'abc', wanted is a list of a number"),
        ({"size": 1, "many": [[1]]}, r"many\[0\] is a list of 1"),
        ({"size": 1, "either": 1.5}, "either is 1.5, wanted is a whole number or text or null"),
        ({"size": 1, "part": "x"}, "part is 'x', wanted is an object"),
        ({"size": 1, "part": {"name": 1}}, "part: name is 1"),
        ({"size": 1, "parts": [{"nam": "x"}]}, r"field of c.json: parts\[0\] 'nam'"),
        ({"size": 1, "counts": {"a": "b"}}, "counts: a is 'b'"),
        ({"size": 1, "options": {1: 2}}, "options is an object of 1"),
        ({"size": 1, "flag": "x" * 10_000}, "flag is 'xxx"),
    ],
)
def test_what_does_not_fit_is_one_sentence(fields, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        build(Whole, fields, "c.json")
    assert len(str(caught.value)) < 200


def test_a_value_alone():
    assert as_type([[1, 2], [3, 4]], tuple[tuple[int, int], ...], "sizes") == ((1, 2), (3, 4))
    with pytest.raises(UserError, match=r"sizes\[1\] is 'a', wanted is a list of 2"):
        as_type([[1, 2], "a"], tuple[tuple[int, int], ...], "sizes")
