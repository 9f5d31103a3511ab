"""Hostile run folders and model folders: every file of one, changed by hand."""

import json
import random
import shutil
import zlib
from pathlib import Path

import torch
from checkpoints import odd_tensor, spoil
from files import Commands
from safetensors.torch import load_file, save_file
from values import MARK, NO_FILES, damaged, dumps, no_file, places, spoiled, value


def seal(folder: Path) -> None:
    """Write the manifest of a checkpoint anew."""
    facts = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.is_symlink() and path.name != "manifest.json" and path.stat().st_size < 2**25:
            content = path.read_bytes()
            facts[path.name] = {"bytes": len(content), "crc32": zlib.crc32(content)}
    (folder / "manifest.json").write_text(json.dumps(facts))


def one_field(content: dict, rng: random.Random, index: int) -> dict:
    """JSON with one value changed; the index goes through the places, so that each has its turn."""
    content = json.loads(json.dumps(content))
    every = [path for path in places(content) if path]
    path = every[index % len(every)]
    target = content
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = rng.choice([value(rng), MARK + "NaN", -1, 10**9, "x", None, [], {}])
    return content


def run(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    name = rng.choice(["pictures"] * 4 + ["mask_rcnn", "dino", "upernet", "mask2former"])
    place = folder / "run"
    shutil.copytree(base / "runs" / name, place)
    shutil.copytree(base / "images", folder / "images")
    part = rng.choice(["best", "last"])
    config, model = place / "config.json", place / part / "config.json"
    match index % 10:
        case 0 | 1:
            config.write_text(dumps(one_field(json.loads(config.read_text()), rng, index // 5)))
        case 2 | 3:
            model.write_text(dumps(one_field(json.loads(model.read_text()), rng, index // 5)))
        case 4:
            target = rng.choice([config, model])
            target.write_text(dumps(spoiled(json.loads(target.read_text()), rng, 4)))
        case 5:
            rows = place / "metrics.jsonl"
            row = json.loads(rows.read_text().splitlines()[0])
            lines = [dumps(spoiled(row, rng)) for _ in range(rng.choice([1, 2]))]
            rows.write_text("\n".join([json.dumps(row), *lines, rng.choice(["", "{", "\n\n", json.dumps(row)])]))
        case 6:
            manifest = place / part / "manifest.json"
            good = json.loads(manifest.read_text())
            manifest.write_text(rng.choice([
                "{}", "[]", "null", '{"x": 1}', dumps(spoiled(good, rng)), dumps(one_field(good, rng, index)), "[" * 100_000,
                json.dumps({"../../mark": {"bytes": 0, "crc32": 0}, **good}), json.dumps({"/dev/zero": {"bytes": 0, "crc32": 0}}),
            ]))  # fmt: skip
        case 7:
            state = place / part / "state.pt"
            content = torch.load(state)
            how = rng.randrange(6)
            if how == 0:
                torch.save(
                    rng.choice([{}, [], 3, {"optimizers": {}}, {"position": {}}, torch.ones(3), {"model": {}}]), state
                )
            elif how == 1:
                state.write_bytes(damaged(state.read_bytes(), rng))
            elif how == 2:
                torch.save(torch.nn.Linear(2, 2), state)
            elif how == 3:
                field = rng.choice(list(content["position"]))
                content["position"][field] = rng.choice(
                    [None, "x", -1, 10**9, float("nan"), float("inf"), [], {"a": "b"}]
                )
                torch.save(content, state)
            else:
                optimizer = content.get("optimizer") or content["optimizers"]["network"]
                if how == 4:
                    key = rng.choice(list(optimizer["state"]))
                    optimizer["state"][key] = rng.choice(
                        [
                            {},
                            {"exp_avg": odd_tensor(rng)},
                            3,
                            {"step": "x"},
                            {**optimizer["state"][key], "exp_avg": odd_tensor(rng)},
                        ]
                    )
                else:
                    group = rng.choice(optimizer["param_groups"])
                    group[rng.choice(list(group))] = rng.choice([None, "x", -1, [], float("nan"), (1, 2), {}])
                torch.save(content, state)
            seal(place / part)
        case 8:
            weights = place / part / "model.safetensors"
            try:
                save_file({key: tensor.contiguous() for key, tensor in spoil(load_file(weights), rng).items()}, weights)
            except Exception:  # a tensor that safetensors does not write
                weights.write_bytes(damaged(weights.read_bytes(), rng))
            seal(place / part)
        case 9:
            target = rng.choice([config, model, place / "metrics.jsonl", *(place / part).iterdir(), place / part])
            if target.is_dir():
                shutil.rmtree(target)
            no_file(target, rng.choice(NO_FILES), rng)
    if rng.random() < 0.8 and index % 10 in (2, 3, 4) and (place / part).is_dir():
        seal(place / part)
    image = str(base / "pictures" / "rgb.png")
    command = rng.choice([
        ["predict", "run", image, "--json"], ["predict", f"run/{part}", image, "--json"], ["evaluate", "run", "--data", "images", "--workers", "0"],
        ["explain", "run", image, "--out", "out/e.png"], ["convert", "run", "out/x.safetensors", "--to", "official"],
    ])  # fmt: skip
    if name == "pictures" and (index % 10 in (0, 5, 6, 7) or rng.random() < 0.2):
        command = rng.choice(
            [
                ["resume", "run", "--checkpoint", part],
                ["evaluate", "run", "--workers", "0"],
                ["predict", "run", "--json"],
            ]
        )
    return [command], b""
