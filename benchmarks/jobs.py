"""Claim: whole jobs take no longer here than with what else one would take.

    finetune   T-LRF on a folder of JPEGs, one epoch and its validation    timm, as its train.py
    predict    a folder of JPEGs with T-LRF                                timm, as its inference.py, and transformers
    evaluate   Mask R-CNN on T-LRF on images with COCO's annotations       torchvision's, on timm's T-LRF

    python benchmarks/jobs.py                      2,000 files of 500 x 375, 200 scenes of 640 x 480
    python benchmarks/jobs.py --images 64 --scenes 8 --scene 320      what a busy laptop does in half an hour
    python benchmarks/jobs.py --images 16 --scenes 2 --side 32 --scene 64 --batch 4 --rounds 1      a rehearsal

Each job is done once per round by each library, in a process of its own (`jobs_libraries.py`), in an order that
rotates. Images are made here, weights are random. Of each job:

    samples/s    of the loop: training steps, forward passes with their loading
    seconds      of the whole job after the imports: also the model, checkpoints, metrics, and ours its report
    CPU share    processor time of the process and its workers over wall time and threads
    peak MB      proportional memory of the process and its workers, at most

`paired` is the median over the rounds of (seconds per sample of the rival's loop / ours), `paired_job` that of the
whole jobs, `paired_cpu` that of the processor's time of their processes, imports and all, which says most where
neighbours take turns with them; above 1 where we are faster. `agree` is the share of files with the same best class.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from focalnet.bench.measure import commit, device_name

RESULTS = Path(__file__).parent / "results" / "jobs.jsonl"
LIBRARIES = {
    "finetune": ("focalnet", "timm"),
    "predict": ("focalnet", "timm", "transformers"),
    "evaluate": ("focalnet", "torchvision"),
}
THINGS = ("disc", "bar", "wedge")


def photograph(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth patches with some grain: a JPEG of it is as large as one of a photograph."""
    coarse = rng.integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray((pixels + rng.normal(0, 12, (height, width, 1))).clip(0, 255).astype(np.uint8))


def make(folder: Path, images: int, scenes: int, classes: int = 10) -> None:
    """Class folders `images/train` and `images/val` (an eighth as many), and `scenes` with COCO's annotations."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", max(images // 8, classes))):
        for number in range(count):
            place = folder / "images" / split / f"class{number % classes}"
            place.mkdir(parents=True, exist_ok=True)
            photograph(rng, 500, 375).save(place / f"{number:05d}.jpg", quality=90)
    (folder / "scenes/val2017").mkdir(parents=True)
    (folder / "scenes/annotations").mkdir()
    rows: list[dict[str, Any]] = []
    for number in range(scenes):
        photograph(rng, 640, 480).save(folder / "scenes/val2017" / f"{number:05d}.jpg", quality=90)
        for _ in range(7):
            x, y = (int(rng.integers(0, side)) for side in (500, 360))
            w, h = (int(rng.integers(20, 120)) for _ in range(2))
            rows.append({"id": len(rows) + 1, "image_id": number, "category_id": int(rng.integers(len(THINGS))) + 1,
                         "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
                         "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]})  # fmt: skip
    content = {
        "images": [{"id": n, "file_name": f"{n:05d}.jpg", "width": 640, "height": 480} for n in range(scenes)],
        "annotations": rows,
        "categories": [{"id": index, "name": name} for index, name in enumerate(THINGS, 1)],
    }
    (folder / "scenes/annotations/instances_val2017.json").write_text(json.dumps(content))


def family(root: int) -> list[int]:
    """A process and all that it began."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = place.read_text().rpartition(")")[2].split()
            parents[int(place.parent.name)] = int(words[1])
    found = [root]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def memory(root: int) -> float:
    """Megabytes of a process and all that it began; what several share counts once."""
    total = 0
    for process in family(root):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def once(job: str, library: str, given: str, threads: int) -> dict[str, Any]:
    """Do a job in a process of its own and watch it."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(Path(__file__).with_name("jobs_libraries.py")), job, library, given]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    peak, words = 0.0, []
    reader = threading.Thread(target=lambda: words.extend(process.communicate()))
    before = os.times()
    reader.start()
    while reader.is_alive():
        peak = max(peak, memory(process.pid))
        reader.join(2)  # to ask takes the system a third of a second
    wall, after = time.perf_counter() - began, os.times()
    if process.returncode:
        raise SystemExit(f"{job} with {library} failed:\n{words[1][-3000:]}")
    result = json.loads(words[0].splitlines()[-1]) if words[0].strip() else {}
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {**result, "processor": cpu, "cpu": cpu / wall / threads, "peak_mb": peak}


def compare(job: str, rival: str, rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """The row of a rival."""

    def paired(figure: str) -> float:
        ratios = []
        for turn in rounds:
            theirs, ours = (turn[name][figure] / turn[name]["samples"] for name in (rival, "focalnet"))
            ratios.append(theirs / ours)
        return round(statistics.median(ratios), 3)

    row: dict[str, Any] = {"job": job, "against": rival}
    row |= {"paired": paired("loop"), "paired_job": paired("seconds"), "paired_cpu": paired("processor")}
    for name, suffix in (("focalnet", ""), (rival, "_against")):
        rate = statistics.median(turn[name]["samples"] / turn[name]["loop"] for turn in rounds)
        row[f"samples_per_second{suffix}"] = round(rate, 2)
        for figure, digits in (("seconds", 1), ("cpu", 2), ("peak_mb", 0)):
            row[figure + suffix] = round(statistics.median(turn[name][figure] for turn in rounds), digits)
    if "answers" in rounds[0][rival]:
        ours, theirs = (rounds[0][name]["answers"] for name in ("focalnet", rival))
        row["agree"] = round(statistics.mean(one == other for one, other in zip(ours, theirs, strict=True)), 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES))
    parser.add_argument("--images", type=int, default=2000, help="files to train with and to predict")
    parser.add_argument("--scenes", type=int, default=200, help="images to evaluate a detector on")
    parser.add_argument("--side", type=int, default=224, help="input of the classifier in pixels")
    parser.add_argument("--scene", type=int, default=800, help="shorter side of the detector's input in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in
             ("images", "scenes", "side", "scene", "batch", "workers", "threads", "rounds")}  # fmt: skip
    facts = {"commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__,
             "device": device_name("cpu"), **sizes}  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.images, options.scenes)
        given = json.dumps({"folder": folder, "things": THINGS, "jobs": options.jobs, **sizes})
        once("prepare", "", given, options.threads)
        for job in options.jobs:
            names = LIBRARIES[job]
            rounds: list[dict[str, dict[str, Any]]] = []
            for turn in range(options.rounds):
                order = names[turn % len(names) :] + names[: turn % len(names)]
                rounds.append({library: once(job, library, given, options.threads) for library in order})
            for rival in names[1:]:
                row = compare(job, rival, rounds)
                print(json.dumps(row), flush=True)
                with options.output.open("a") as file:
                    file.write(json.dumps(row | facts) + "\n")


if __name__ == "__main__":
    main()
