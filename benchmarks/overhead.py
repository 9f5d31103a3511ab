"""Claim: what surrounds a network costs little: the bookkeeping of a training step, and the start of a command.

    python benchmarks/overhead.py                     both
    python benchmarks/overhead.py --parts start       the commands alone

step     `Training.step` and the look at its loss, beside a bare loop: the same network and batch, the fused AdamW,
         gradients clipped. In turns in one process.
start    commands from the shell to their end, `predict` on one image with a small network, beside a Python that
         imports torch and torchvision and does nothing. In turns, each in a process of its own.

The clock is that of the processor. `ratio` is the median over the rounds of (time here / time of what is beside it in
the same round), `seconds` the median here. Rows are printed, and appended as JSON lines with commit and device.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

import focalnet
from focalnet.bench.measure import commit, device_name, in_turns
from focalnet.engine.config import TrainConfig
from focalnet.engine.devices import build_accelerator
from focalnet.engine.losses import Losses
from focalnet.engine.training import Training
from focalnet.tasks.classify import Classify

RESULTS = Path(__file__).parent / "results" / "overhead.jsonl"
STEPS = {"minifocal_32": (64, 32), "focalnet_tiny_lrf": (2, 96)}
"""Networks, and the batch and the side of the images of a step."""
CLASSES = [str(digit) for digit in range(10)]


def steps(name: str, batch: int, side: int) -> dict[str, Callable[[], float]]:
    """A step by the library and a bare one."""

    def network() -> Any:
        torch.manual_seed(0)
        return focalnet.create_model(name, classes=CLASSES, drop_path_rate=0.0)

    images, targets = torch.randn(batch, 3, side, side), F.one_hot(torch.randint(10, (batch,)), 10).float()
    ours = network()
    config = TrainConfig(batch_size=batch, warmup_epochs=0.0)
    accelerator = build_accelerator(device="cpu")
    training = Training(Classify(model=name), ours, config, accelerator)
    losses = Losses(accelerator)

    def by_the_library() -> float:
        losses.add(0, training.step(iter([{"images": images, "targets": targets, "skipped": []}]), 0, 1000))
        return sum(losses.look()[0][1].values())

    bare = network().train()
    optimizer = torch.optim.AdamW(bare.parameters(), config.lr, weight_decay=config.weight_decay, fused=True)

    def by_hand() -> float:
        loss = F.cross_entropy(bare(images), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), config.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return {"Training.step": by_the_library, "bare": by_hand}


def processor_time(call: Callable[[], object]) -> float:
    before = time.process_time()
    call()
    return time.process_time() - before


def child_time(words: list[str]) -> float:
    """Processor time of a command, over all its threads; its modules may be kept compiled, as installers leave them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = os.posix_spawn(
        words[0], words, environment, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(child, 0)
    assert status == 0, f"{words} ended with {status}"
    return usage.ru_utime + usage.ru_stime


def rows(part: str, seconds: dict[str, list[float]], beside: str, **facts: object) -> list[dict]:
    return [
        {"part": part, **facts, "what": name, "seconds": round(statistics.median(found), 4), "beside": beside,
         "ratio": round(statistics.median(mine / base for mine, base in zip(found, seconds[beside], strict=True)), 3)}
        for name, found in seconds.items()
        if name != beside
    ]  # fmt: skip


def measure_steps(rounds: int) -> list[dict]:
    found = []
    for name, (batch, side) in STEPS.items():
        calls = steps(name, batch, side)
        first = {what: call() for what, call in calls.items()}  # also the warm-up
        assert abs(first["bare"] - first["Training.step"]) < 1e-4, f"not the same step: {first}"
        timed = {what: partial(processor_time, call) for what, call in calls.items()}
        found += rows("step", in_turns(timed, rounds), "bare", network=name, batch=batch, side=side)
    return found


def measure_starts(rounds: int) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        network, image = Path(folder, "network"), Path(folder, "image.png")
        focalnet.save_pretrained(focalnet.create_model("minifocal_32", classes=CLASSES), network)
        Image.linear_gradient("L").convert("RGB").save(image)
        words = {
            "torch, torchvision": ["-c", "import torch, torchvision"],
            "focalnet --help": ["-m", "focalnet", "--help"],
            "focalnet models": ["-m", "focalnet", "models"],
            "focalnet train --help": ["-m", "focalnet", "train", "--help"],
            "focalnet predict": ["-m", "focalnet", "predict", str(network), str(image)],
        }
        calls = {name: partial(child_time, [sys.executable, *command]) for name, command in words.items()}
        for call in calls.values():
            call()  # the files are in memory then
        return rows("start", in_turns(calls, rounds), "torch, torchvision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["step", "start"], choices=["step", "start"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = {
        "commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__,
        "device": device_name("cpu"), "threads": options.threads, "rounds": options.rounds,
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        for row in {"step": measure_steps, "start": measure_starts}[part](options.rounds):
            print(json.dumps(row), flush=True)
            with options.output.open("a") as file:
                file.write(json.dumps(row | facts) + "\n")


if __name__ == "__main__":
    main()
