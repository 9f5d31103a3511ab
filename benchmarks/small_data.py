"""What `focalnet train --data FOLDER` gives on a few images without weights: 216 crops of five classes.

The crops of 96 x 96 pixels come from five photographs that lie inside scikit-image: at random places of the upper two
thirds for training, and of the lower third to evaluate on, so that no pixel is in both. Nothing is downloaded.

    python benchmarks/small_data.py                     the figures, for seeds 0, 1 and 2
    python benchmarks/small_data.py --make crops        only the folders crops/train and crops/heldout
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

COUNTS = {"brick": 44, "coffee": 43, "grass": 43, "gravel": 43, "immunohistochemistry": 43}
"""Photograph -> crops to train with."""
HELD_OUT = 40
"""Crops of each to evaluate on."""
SIDE = 96


def make(folder: Path, seed: int = 0) -> Path:
    """Write the crops as class folders, in `train` and `heldout`."""
    rng = np.random.default_rng(seed)
    for name, count in COUNTS.items():
        pixels = np.asarray(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
        border = len(pixels) * 2 // 3
        for split, part, crops in (("train", pixels[:border], count), ("heldout", pixels[border:], HELD_OUT)):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(crops):
                top, left = (rng.integers(0, side - SIDE + 1) for side in part.shape[:2])
                Image.fromarray(part[top : top + SIDE, left : left + SIDE]).save(place / f"{number:02d}.png")
    return folder


def measure(folder: Path, run: Path, seed: int, *more: str) -> dict[str, float]:
    """Train by the bare command, or with more options, and evaluate on what was held out."""

    def focalnet(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "focalnet", *arguments], check=True)

    began = time.perf_counter()
    focalnet("train", "--data", str(folder / "train"), "--out", str(run), "--seed", str(seed), *more)
    seconds = time.perf_counter() - began
    result = run / "heldout.json"
    focalnet("evaluate", str(run), "--data", str(folder / "heldout"), "--json", str(result))
    return {"seed": seed, "top1": json.loads(result.read_text())["top1"], "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if options.make:
        make(options.make)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = make(Path(place, "crops"))
        rows = [measure(folder, Path(place, f"run{seed}"), seed) for seed in options.seeds]
    for row in rows:
        print(json.dumps(row))
    mean = statistics.mean(row["top1"] for row in rows)
    print(f"mean top-1 {mean:.4f} on {HELD_OUT * len(COUNTS)} held-out crops")


if __name__ == "__main__":
    main()
