"""Pickles give arrays and run nothing: forged states, bombs and random damage end in a sentence."""

import pickle
import random
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch

from focalnet.errors import UserError
from focalnet.weights import pickles
from focalnet.weights.files import read_state_dict

SHORT = b"\x8c"  # SHORT_BINUNICODE


def text(value: str) -> bytes:
    return SHORT + bytes([len(value)]) + value.encode()


def array(state: bytes) -> bytes:
    """A pickle of {"a": an array with this state}."""
    make = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01bt\x52"
    return b"\x80\x04}" + text("a") + make + state + b"bs."


def number_type(kind: str = "f4", order: str = "<") -> bytes:
    return (
        b"cnumpy\ndtype\n("
        + text(kind)
        + b"\x89\x88tR(K\x03"
        + text(order)
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )


def state(shape: bytes = b"K\x02\x85", kind: bytes | None = None, content: bytes = bytes(8)) -> bytes:
    return b"(K\x01" + shape + (kind or number_type()) + b"\x89C" + bytes([len(content)]) + content + b"t"


def read(tmp_path, content: bytes, suffix: str = ".pkl"):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    return read_state_dict(path)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("kind", sorted(pickles.KINDS))
def test_arrays_come_out_as_they_went_in(tmp_path, protocol, kind):
    rng = np.random.default_rng(0)
    there = {
        "plain": rng.integers(0, 2, (2, 3)).astype(kind),
        "fortran": np.asfortranarray(rng.integers(0, 2, (3, 4)).astype(kind)),
        "swapped": rng.integers(0, 2, (5,)).astype(np.dtype(kind).newbyteorder(">")),
        "scalar": np.array(1).astype(kind),
        "empty": np.zeros((0, 4), kind),
    }
    here = read(tmp_path, pickle.dumps({"model": OrderedDict(there), "__author__": "x"}, protocol))
    assert {name: value.tolist() for name, value in here.items()} == {name: v.tolist() for name, v in there.items()}
    assert {tensor.numpy().dtype for tensor in here.values()} == {np.dtype(kind)}


def test_an_array_of_the_test_is_read(tmp_path):
    assert read(tmp_path, array(state()))["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "forged",
    [
        state(shape=b"J\xff\xff\xff\x7f\x85"),  # more numbers than bytes
        state(shape=b"J\xff\xff\xff\xff\x85"),  # -1
        state(shape=b"G\x40\x00\x00\x00\x00\x00\x00\x00\x85"),  # 2.0
        state(shape=b"(" + 40 * b"K\x01" + b"t", content=bytes(4)),  # more axes than numpy has
        state(kind=number_type("O8")),  # pointers
        state(kind=number_type("V8")),
        state(kind=number_type("f4", "?")),
        state(kind=b"N"),
        state(content=b""),
        b"(K\x01t",
        b"N",
        b"}",
        state() + b"\x85",
    ],
)
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_a_forged_array_is_refused(tmp_path, forged, suffix):
    content = array(forged)
    if suffix == ".pth":  # the format of torch before 1.6: magic number, version, system, content
        head = b"".join(
            pickle.dumps(part, 2)
            for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
        )
        content = head + b"\x80\x02" + content[2:] + pickle.dumps([], 2)
    with pytest.raises(UserError, match="weights"):
        read(tmp_path, content, suffix)


BOMBS = {
    "deep key": b"\x80\x04}" + b")" + 2_000_000 * b"\x85" + b"K\x01s.",  # a key of two million tuples
    "memo": b"\x80\x04K\x01r\xff\xff\xff\xff.",  # place 4,294,967,295 of the memo
    "bytes": b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"x.",  # an exabyte of bytes
    "frame": b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.",  # an exabyte of frame
    "number": b"L" + 200_000 * b"9" + b"L\n.",
    "command": b"\x80\x04cos\nsystem\n" + text("touch pwned") + b"\x85R.",
    "deep pair": b"\x80\x04ccollections\nOrderedDict\n(((" + 2_000_000 * b"\x85" + b"K\x01tltR.",
    "deep set": b"\x80\x04\x8f(" + b")" + 2_000_000 * b"\x85" + b"\x90.",  # the same in a set
}
SCRIPT = """
import resource, sys
from focalnet.errors import UserError
from focalnet.weights.files import read_state_dict
now = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (now + 3 * 2**30,) * 2)
for path in sys.argv[1:]:
    try:
        print(path, flush=True)
        read_state_dict(path)
    except UserError as error:
        print(error)
"""


def test_bombs_are_sentences(tmp_path):
    """In a process of its own with 3 GiB, since they must neither crash it nor fill the memory."""
    for name, content in BOMBS.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
    command = [sys.executable, "-c", SCRIPT, *(str(tmp_path / f"{name}.pkl") for name in BOMBS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-500:]
    assert done.stdout.count("\n") == 2 * len(BOMBS)
    assert not (tmp_path / "pwned").exists()


def test_damage_at_random_is_a_sentence(tmp_path):
    rng = random.Random(0)
    weights = {"model": OrderedDict(a=np.ones((2, 3), "f4"), b=np.arange(5)), "meta": {"classes": ["x"]}}
    whole = [pickle.dumps(weights, protocol) for protocol in range(6)]
    for _ in range(3000):
        content = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(content))
            if rng.random() < 0.3:
                content[place : place + rng.randint(1, 8)] = rng.randbytes(rng.randint(0, 8))
            else:
                content[min(place, len(content) - 1)] = rng.randrange(256)
        try:
            found = read(tmp_path, bytes(content))
        except UserError:
            continue
        assert all(isinstance(value, torch.Tensor) for value in found.values())
