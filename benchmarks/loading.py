"""Claim: images are loaded no slower than by timm, from the file to the tensor.

    decode         the file to an upright RGB image           timm: `Image.open(file).convert("RGB")`
    light          decode, random crop, flip, normalize       `create_transform(is_training=True)`
    randaugment    the paper's augmentation                   the same with its policy (but one level) and erasing
    evaluation     decode, resize, center crop, normalize     `create_transform(is_training=False)`

    python benchmarks/loading.py                              24 JPEGs of 500 x 375, one thread
    python benchmarks/loading.py --width 4000 --height 3000   as from a camera

Both take turns file by file in one process, in an order that rotates, and the clock is that of the processor, so that a
neighbour slows both. What is drawn is drawn anew in each round, by each library in its own way. Of the time per image:

    ratio   median of timm / median of ours, over rounds and files
    least   the sum over the files of the least time of timm / ours: what is left where no neighbour was

above 1 where we are faster.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from jobs import photograph

from focalnet import inputs
from focalnet.bench.measure import commit, device_name
from focalnet.data.transforms.classification import Augmentation, shorter_side, train_transform

RESULTS = Path(__file__).parent / "results" / "loading.jsonl"
POLICY = "rand-m9-inc1"
"""Without the paper's mstd0.5: at level 10 timm asks Pillow for no bits, which is an error."""

Load = Callable[[str], Any]


def pipelines(side: int) -> dict[str, tuple[Load, Load]]:
    """Of each pipeline ours and timm's."""
    from timm.data import create_transform

    how = inputs.Image(input_size=side, crop_pct=0.875)
    common: dict[str, Any] = {"input_size": side, "interpolation": "bicubic", "mean": how.mean, "std": how.std}

    def training(policy: str | None, erase: float) -> tuple[Load, Load]:
        augmentation = Augmentation(auto_augment=policy, color_jitter=0.0, erase=erase)
        ours, enough = train_transform(how, augmentation), shorter_side(how, augmentation)
        theirs = create_transform(
            is_training=True, auto_augment=policy, color_jitter=0.0, re_prob=erase, re_mode="pixel", **common
        )
        return (lambda file: ours(how.read(file, enough=enough))), (lambda file: theirs(opened(file)))

    seen = create_transform(is_training=False, crop_pct=0.875, **common)
    return {
        "decode": (how.read, opened),
        "light": training(None, 0.0),
        "randaugment": training(POLICY, 0.25),
        "evaluation": ((lambda file: how(how.read(file))), (lambda file: seen(opened(file)))),
    }


def opened(file: str) -> Image.Image:
    """As timm's data sets open an image."""
    return Image.open(file).convert("RGB")


def measure(ours: Load, theirs: Load, files: list[str], rounds: int) -> dict[str, float]:
    """Milliseconds of processor time per image, and their ratios."""
    times: dict[Load, list[list[float]]] = {ours: [], theirs: []}
    for turn in range(-1, rounds):  # the first one warms up
        for load in times:
            times[load].append([])
        for number, file in enumerate(files):
            for load in (ours, theirs) if (turn + number) % 2 else (theirs, ours):
                for seed in (torch.manual_seed, random.seed, np.random.seed):
                    seed(max(turn, 0) * len(files) + number)
                began = time.process_time()
                load(file)
                times[load][-1].append(time.process_time() - began)
    medians, least = {}, {}
    for load, table in times.items():
        medians[load] = statistics.median(value for row in table[1:] for value in row)
        least[load] = sum(map(min, zip(*table[1:], strict=True)))
    return {
        "ms": round(1e3 * medians[ours], 3),
        "ms_timm": round(1e3 * medians[theirs], 3),
        "ratio": round(medians[theirs] / medians[ours], 3),
        "least": round(least[theirs] / least[ours], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", nargs="+", default=list(pipelines(224)), choices=list(pipelines(224)))
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    facts = {"commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__,
             "device": device_name("cpu"), "size": [options.width, options.height], "side": options.side,
             "files": options.files, "rounds": options.rounds}  # fmt: skip
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, f"{number}.jpg")) for number in range(options.files)]
        for file in files:
            photograph(rng, options.width, options.height).save(file, quality=90)
        for name in options.pipelines:
            row = {"pipeline": name, **measure(*pipelines(options.side)[name], files, options.rounds)}
            print(json.dumps(row), flush=True)
            options.output.parent.mkdir(parents=True, exist_ok=True)
            with options.output.open("a") as output:
                output.write(json.dumps(row | facts) + "\n")


if __name__ == "__main__":
    main()
