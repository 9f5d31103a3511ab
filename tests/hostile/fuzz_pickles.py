"""Coverage-guided fuzzing of the pickle reader: `python fuzz_pickles.py SECONDS CORPUS`.

libFuzzer, through atheris, changes pickles and files of torch at random and keeps what reaches new lines of the reader.
An input may be refused by any exception that `read_checkpoint` turns into a sentence; what is read must be tensors. A
crash of the process, more than 2 GiB, 10 seconds for one input, an import of the file's choice or a made file are
failures, and the input that did it is kept as `crash-*` in the folder above the corpus.
"""

import contextlib
import io
import os
import pickle
import random
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["focalnet.weights.pickles", "focalnet.weights.torch_files", "focalnet.weights.files", "pickle"]
):
    import focalnet.weights.files as files
    from focalnet.errors import UserError

import numpy as np
import torch

PLACE = Path(sys.argv[2]).parent


def seeds() -> list[bytes]:
    """Good files, each with a first byte that says its suffix."""
    arrays = {"a": np.ones((2, 3), "f4"), "b": np.arange(5), "c": np.asfortranarray(np.ones((2, 2), ">f8"))}
    tensors = {
        "a": torch.ones(2, 3),
        "b": torch.arange(4),
        "c": torch.ones(3).half()[1:],
        "d": torch.nn.Parameter(torch.ones(1)),
    }
    found = [
        b"\0" + pickle.dumps({"model": OrderedDict(arrays), "meta": {"classes": ["x"]}}, protocol)
        for protocol in range(6)
    ]
    for zipped in (True, False):
        for content in (
            tensors,
            {"model": tensors, "optimizer": {"state": {0: tensors}}},
            {"a": torch.eye(2).to_sparse()},
        ):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            if zipped:  # libFuzzer changes the pickle; `packed` puts the archive around it
                with zipfile.ZipFile(buffer) as archive:
                    name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                    found.append(b"\1" + archive.read(name))
            found.append(b"\2" + buffer.getvalue())
    return found


def packed(content: bytes) -> bytes:
    """An archive as torch writes it, with this pickle and some storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", content)
        for number in range(4):
            archive.writestr(f"x/data/{number}", bytes(8 * (number + 1)))
    return buffer.getvalue()


def read_one(data: bytes) -> None:
    kind, content = data[:1], data[1:]
    suffix = ".pkl" if kind < b"\1" else ".pth"
    path = PLACE / f"input{suffix}"
    path.write_bytes(packed(content) if kind == b"\1" else content)
    modules = set(sys.modules)
    try:
        found = files.read_checkpoint(path)
    except UserError:
        pass
    else:
        assert all(isinstance(value, torch.Tensor) for value in found.state_dict.values())
        assert found.classes is None or all(isinstance(name, str) for name in found.classes)
    imported = {name.split(".")[0] for name in sys.modules.keys() - modules}
    assert imported <= {"torch", "numpy", "encodings"}, imported  # what they import late themselves
    assert not (PLACE / "pwned").exists()


def changed(data: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's change, or one that knows pickles: a step put in, taken out or doubled, a number made large."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        return atheris.Mutate(data, most)
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(1, len(out) + 1)
        match rng.randrange(5):
            case 0:
                out[place:place] = rng.choice(STEPS)
            case 1:
                del out[place : place + rng.randint(1, 6)]
            case 2:
                out[place:place] = out[place : place + rng.randint(1, 30)]
            case 3:
                out[place : place + 1] = rng.choice(
                    [
                        b"\x8a\x08" + struct.pack("<q", rng.choice([-1, 2**31, 2**62, 2**63 - 1])),
                        b"J\xff\xff\xff\x7f",
                        b"K\xff",
                        b"K\0",
                    ]
                )
            case 4:
                out[place : place + 1] = bytes([rng.randrange(256)])
    return bytes(out[:most])


GLOBALS = [b"os\nsystem", b"builtins\neval", b"numpy\nndarray", b"numpy\ndtype", b"numpy.core.multiarray\n_reconstruct", b"_codecs\nencode", b"torch._utils\n_rebuild_tensor_v2",
           b"torch._utils\n_rebuild_parameter", b"torch._tensor\n_rebuild_from_type_v2", b"torch\nFloatStorage", b"torch\nSize", b"collections\nOrderedDict",
           b"numpy._core.numeric\n_frombuffer", b"torch._utils\n_rebuild_sparse_tensor", b"yacs.config\nCfgNode", b"builtins\nbytes"]  # fmt: skip
STEPS = [bytes([step]) for step in b"0123(.}])lta\x85\x86\x87bRsuQN\x88\x89\x81\x8f\x90\x91\x93\x94eq\0h\0ro"] + [
    b"c" + name + b"\n" for name in GLOBALS
]


def main() -> None:
    seconds, corpus = sys.argv[1], Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds()):
        (corpus / f"seed{number}").write_bytes(data)
        with contextlib.suppress(AssertionError):  # what torch and numpy import late
            read_one(data)
    os.chdir(PLACE)
    sys.stdout.flush()
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=8192",
        "-print_final_stats=1",
        f"-artifact_prefix={PLACE}/",
    ]
    atheris.Setup(arguments, read_one, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
