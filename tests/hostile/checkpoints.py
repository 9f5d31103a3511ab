"""Hostile files of weights, in every layout."""

import json
import pickle
import random
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from files import Commands
from safetensors.torch import load_file, save_file
from values import NO_FILES, damaged, dumps, no_file, spoiled


class Evil:
    def __reduce__(self):
        return (__import__("os").system, ("touch mark; touch ../mark",))


class Evil2:
    def __reduce__(self):
        return (eval, ("open('../mark', 'w')",))


BOMBS = [
    b"\x80\x04}" + b")" + 300_000 * b"\x85" + b"K\x01s.", b"\x80\x04K\x01r\xff\xff\xff\xff.",
    b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"x.", b"\x80\x04\x96" + (2**33).to_bytes(8, "little") + b"x.",
    b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.", b"L" + 200_000 * b"9" + b"L\n.",
    b"\x80\x04cos\nsystem\n\x8c\x0atouch mark\x85R.", b"\x80\x04ccollections\nOrderedDict\n(((" + 300_000 * b"\x85" + b"K\x01tltR.",
    b"\x80\x04ccollections\nOrderedDict\n](" + b")" + 300_000 * b"\x85" + b"K\x01\x86ea\x85\x81.", b"]" + 500_000 * b"]a" + b".", b".", b"\x80\x04N.", b"",
    b"\x80\x02" + b"}q\0" + b"X\x01\0\0\0ah\0s" + b".",
]  # fmt: skip


def odd_tensor(rng: random.Random) -> torch.Tensor:
    """A tensor that no weights have."""
    return rng.choice([
        lambda: torch.tensor([float("nan")] * 4), lambda: torch.tensor([float("inf"), 1.0]), lambda: torch.ones(4, dtype=torch.int64),
        lambda: torch.ones(4, dtype=torch.bool), lambda: torch.ones(4, dtype=torch.complex64), lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(), lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        lambda: torch.zeros(3, device="meta"), lambda: torch.ones(4).to(torch.float8_e4m3fn), lambda: torch.ones(4, dtype=torch.uint8),
        lambda: torch.zeros(0), lambda: torch.zeros(1, 0, 4), lambda: torch.ones(()), lambda: torch.ones([1] * 20), lambda: torch.ones(1).expand(1000, 1000),
        lambda: torch.ones(4, dtype=torch.float64) * 1e300, lambda: torch.ones(4, dtype=torch.float16),
    ])()  # fmt: skip


def spoil(weights: dict, rng: random.Random) -> dict:
    """A state dict with a tensor or a name that no network has."""
    weights = dict(weights)
    for _ in range(rng.choice([1, 1, 3])):
        name = rng.choice(list(weights))
        match rng.randrange(8):
            case 0 | 1 | 2:
                weights[name] = odd_tensor(rng)
            case 3:
                tensor = torch.atleast_1d(weights[name])
                weights[name] = rng.choice([tensor[:1], tensor[None], tensor.flatten(), torch.cat([tensor, tensor])])
            case 4:
                del weights[name]
            case 5:
                weights[rng.choice(["layers.9999999.blocks.0.x", "layers.0.blocks.99999999999.norm1.weight", "", ".", "module.", "x" * 10_000, "\0", "layers.-1.blocks.0.x",
                                    "head.weight", "backbone.x", "level_embed", "transformer.level_embed", "é", "layers.٣.blocks.0.x"])] = torch.ones(2)  # fmt: skip
            case 6:
                weights = {
                    rng.choice(["module.", "vision.", "x.", "module." * 1000]) + key: value
                    for key, value in weights.items()
                }
            case 7:
                weights[name] = torch.full_like(weights[name], rng.choice([float("nan"), float("inf"), 1e30, 0.0]))
    return weights


def safetensors_head(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file with another header."""
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    match rng.randrange(5):
        case 0:
            text = dumps(spoiled(head, rng, 3)).encode()
        case 1:
            text = rng.choice([b"[" * 100_000, b"{}", b"null", b"{" + b'"a":{},' * 1000 + b'"b":1}', b"\xff"])
        case 2:
            return struct.pack("<Q", rng.choice([0, 1, 2**40, 2**63, length + 1])) + content[8:]
        case 3:
            head["__metadata__"] = {
                "focalnet": rng.choice(
                    [
                        "{}",
                        "[]",
                        "x",
                        "NaN",
                        "[" * 100_000,
                        '{"architecture": {}}',
                        '{"variant": 1, "architecture": {"embed_dim": 1e9}}',
                    ]
                )
            }
            text = json.dumps(head).encode()
        case _:
            name = rng.choice([key for key in head if key != "__metadata__"])
            head[name] |= rng.choice(
                [
                    {"shape": [2**40]},
                    {"shape": [-1]},
                    {"dtype": "F8_E4M3"},
                    {"dtype": "C64"},
                    {"data_offsets": [0, 2**50]},
                    {"data_offsets": [8, 0]},
                    {"shape": [0, 2**62, 2**62]},
                ]
            )
            text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def checkpoint(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    source = rng.choice(sorted(path for path in (base / "weights").iterdir() if path.is_file()))
    weights = load_file(source) if source.suffix == ".safetensors" else torch.load(source)
    weights = weights.get("model", weights.get("state_dict", weights))
    path = folder / f"w{source.suffix}"
    match index % 8:
        case 0:
            path.write_bytes(damaged(source.read_bytes(), rng))
        case 1:
            path = path.with_suffix(rng.choice([".pth", ".pkl", ".bin"]))
            content = {"model": weights, "config": rng.choice([Evil(), Evil2()])}
            if path.suffix == ".pkl":
                arrays = {name: tensor.numpy() for name, tensor in weights.items()}
                path.write_bytes(pickle.dumps(content | {"model": arrays}))
            else:
                torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.5)
        case 2:
            path = path.with_suffix(rng.choice([".pth", ".pkl"]))
            bomb = rng.choice(BOMBS)
            if path.suffix == ".pth" and rng.random() < 0.7:
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("w/data.pkl", bomb)
                    archive.writestr("w/version", "3\n")
            else:
                path.write_bytes(bomb)
        case 3:
            path = path.with_suffix(rng.choice([".pth", ".pkl"]))
            arrays = {name: tensor.numpy() for name, tensor in weights.items()}
            name = rng.choice(list(arrays))
            arrays[name] = rng.choice(
                [
                    np.array(["x"]),
                    np.array([None]),
                    np.array([np.nan]),
                    np.array([1], "M8[s]"),
                    np.zeros(2, "i4,f4"),
                    np.ones(3, ">f4"),
                    np.array(3),
                    None,
                    3.5,
                    "x",
                    [1],
                    {"a": 1},
                ]
            )
            content = pickle.dumps({"model": arrays}, rng.choice(range(6)))
            path.write_bytes(damaged(content, rng) if rng.random() < 0.5 else content)
        case 4 if source.suffix == ".safetensors":
            path.write_bytes(safetensors_head(rng, source.read_bytes()))
        case 4:
            with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w", rng.choice([0, 8])) as out:
                for name in archive.namelist():
                    if rng.random() > 0.05:
                        data = archive.read(name)
                        out.writestr(name, damaged(data, rng) if name.endswith("data.pkl") else data)
        case 5:
            no_file(path, rng.choice(NO_FILES), rng)
        case _:
            spoiled_weights = spoil(weights, rng)
            try:
                if path.suffix == ".safetensors":
                    save_file({name: value.contiguous() for name, value in spoiled_weights.items()}, path)
                else:
                    torch.save(
                        rng.choice(
                            [
                                spoiled_weights,
                                {"model": spoiled_weights},
                                {
                                    "state_dict": spoiled_weights,
                                    "meta": {"CLASSES": rng.choice([1, ["a"], ["a"] * 10, [None]])},
                                },
                                {"model_ema": spoiled_weights, "model": 3},
                            ]
                        ),
                        path,
                    )
            except Exception:  # a file that cannot even be written
                shutil.copy(source, path)
    image = str(base / "pictures" / "rgb.png")
    to = rng.choice(
        ["official", "timm", "transformers", "mmdet", "focalnet", "detrex", "mmseg", "facebookresearch", "nonsense"]
    )
    return [rng.choice([
        ["convert", path.name, f"out/x{rng.choice(['.pth', '.safetensors', '.bin'])}", "--to", to],
        ["convert", path.name, f"out/x{rng.choice(['.pth', '.safetensors'])}", "--to", source.stem.partition("-")[2]],
        ["predict", path.name, image, "--json"],
        ["predict", "minifocal_32", image, "--weights", path.name, "--json"],
    ])], b""  # fmt: skip
