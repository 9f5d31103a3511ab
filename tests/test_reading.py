"""Files that describe something are read within bounds: everything else is one sentence that names the file."""

import json
import math
import os
import tracemalloc

import pytest

from focalnet import reading
from focalnet.errors import UserError

READERS = (reading.read_text, reading.read_lines, reading.read_json, reading.read_object, reading.read_yaml)


def refused(reader, path, match=""):
    with pytest.raises(UserError, match=match) as caught:
        reader(path)
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    refused(reader, tmp_path / "pipe", "a pipe or a device")
    refused(reader, "/dev/zero", "a pipe or a device")
    refused(reader, tmp_path, "a folder")
    refused(reader, tmp_path / "missing", "there is no file")
    refused(reader, tmp_path / "loop", "symbolic links")
    refused(reader, tmp_path / ("x" * 1000), "too long")
    refused(reader, "\ud800.json", "surrogates")
    refused(reader, "a\0b", "null")


@pytest.mark.parametrize("reader", READERS)
def test_only_text_of_some_size(reader, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe{}")
    refused(reader, path, "UTF-8")
    path.write_text("{}", encoding="utf-16")
    refused(reader, path, "UTF-8")
    with open(path, "wb") as file:
        file.truncate(2**40)  # no bytes on the disk
    refused(reader, path, "1,099,511,627,776 bytes")
    with open(path, "wb") as file:
        file.truncate(2**33)
    tracemalloc.start()
    with pytest.raises(UserError, match="UTF-8"):
        reader(path, most=reading.DATA)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbf[1]\r\n")
    assert reading.read_json(path) == [1]
    assert reading.read_yaml(path) == [1]
    assert reading.read_lines(path) == ["[1]"]


def test_lines_end_in_every_way(tmp_path):
    path = tmp_path / "file"
    path.write_bytes("a \r\n\nb\x0bc\u2028d\n\n".encode())
    assert reading.read_lines(path) == ["a", "", "b\x0bc\u2028d"]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1,]", "{'a': 1}", "NaN", "[Infinity]", "[-Infinity]", "1e999", "[-1e400]", "9" * 19, "9" * 100_000,
        "-" + "9" * 20, "1" * 400 + ".5", "[" * 65 + "]" * 65, "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900,
        '["\\ud800"]', '{"\\udbff": 1}',
    ],
)  # fmt: skip
def test_what_is_no_json(text, tmp_path):
    with pytest.raises(UserError, match=r"^the text .*; copy or download it again\.$") as caught:
        reading.parse_json(text, "the text")
    assert len(str(caught.value)) < 300


def test_json_is_read_as_python_reads_it():
    value = {"a": [1, -2.5, 1e300, None, True, 2**63 - 1, 1 - 2**63], "b": {"é": "\U0001f600"}, "c": "\udcff"}
    assert reading.parse_json(json.dumps(value), "it") == value
    deep = "[" * 64 + "]" * 64
    assert reading.parse_json(deep, "it") == json.loads(deep)
    assert math.isnan(reading.parse_json("[NaN]", "it", undefined=True)[0])


def test_an_object_has_named_fields(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("[1, 2]")
    refused(reading.read_object, path, "holds a list of 2, no object")


@pytest.mark.parametrize(
    "text",
    [
        "a: [", "a: 1\n a: 2", "a: .nan", "- .inf", "a: " + "9" * 30, "a: " + "9" * 100_000, "a: 1" + ":1" * 5000,
        "[" * 100_000, "- " * 70 + "a", "a: &x [1]\nb: *x", "a: 2020-13-45", "a: !!python/object:os.system x",
        "? [1]\n: 2", 'a: "\\uD800"', "a: " + "b" * 5000, "\t", "a: !!int x", "a: !!binary é",
    ],
)  # fmt: skip
def test_what_is_no_yaml(text, tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(text, encoding="utf-8")
    refused(reading.read_yaml, path, "data.yaml")


def test_yaml_is_read_safely(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("names: {0: cat, 1: dog}\ntrain: [a, b]\nnc: 2\nx: 0.5\n")
    assert reading.read_yaml(path) == {"names": {0: "cat", 1: "dog"}, "train": ["a", "b"], "nc": 2, "x": 0.5}


def test_what_is_written_has_no_bare_nan():
    value = {"a": [1.5, float("nan")], "b": (float("inf"),), "c": {"d": -math.inf}}
    assert json.loads(reading.write_json(value)) == {"a": [1.5, None], "b": [None], "c": {"d": None}}
    assert not reading.defined(value)
    assert reading.defined({"a": [1.5, 2, None, "NaN"]})
    assert reading.write_json({"a": 1.5}) == '{"a": 1.5}'
