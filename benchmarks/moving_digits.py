"""Films of moving digits: does the network see the direction, and does it need the modulator over time for it?

    python benchmarks/moving_digits.py          three seeds, by the recipe "moving_digits"

Beside accuracy stands the share of films that, played backwards, are called the opposite direction. The control is the
same network whose modulator over time is one: it sees a bag of frames, in which a direction and its opposite are alike.
Rows are printed, and appended as JSON lines with commit and device.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from torch import nn

from focalnet.bench.measure import commit, device_name
from focalnet.data.formats.moving_digits import DIRECTIONS
from focalnet.engine.config import TrainConfig
from focalnet.engine.recipes import get_recipe
from focalnet.engine.train import train
from focalnet.inputs.films import Film
from focalnet.models.create import create_model
from focalnet.tasks import get_task, register
from focalnet.tasks.video import VideoTask

RESULTS = Path(__file__).parent / "results" / "moving_digits.jsonl"
OPPOSITE = {
    name: next(other for other, step in DIRECTIONS.items() if (-step[0], -step[1]) == way)
    for name, way in DIRECTIONS.items()
}


@register
@dataclass(frozen=True, kw_only=True)
class Control(VideoTask):
    """The same without a modulator over time."""

    name = "control"

    def build_model(self, data):
        model = super().build_model(data)
        for name, module in model.named_modules():
            if name.endswith(".h_temporal"):
                nn.init.zeros_(module.weight)
                nn.init.ones_(module.bias)
            if name.endswith("_temporal") or "_temporal." in name:
                module.requires_grad_(False)
        return model


def reversed_film(film: Film) -> Film:
    frames = np.stack([np.asarray(frame) for frame in film.take(range(len(film)))])
    return Film(frames[::-1].copy(), film.name)


def measure(folder: Path, name: str, seed: int) -> dict[str, float]:
    task_class = get_task(name)
    recipe = get_recipe("moving_digits", task_class.embedded.model)
    task = task_class(model=task_class.embedded.model, **recipe.task)
    config = TrainConfig(**recipe.train | {"seed": seed, "workers": 0, "precision": "fp32"})
    began = time.process_time()
    run = train(task, config, folder / f"{name}{seed}")
    seconds = time.process_time() - began
    model = create_model(None, weights=str(run.checkpoint("best"))).eval()
    data = task.datasets(seed).val
    answers: dict[bool, list[str]] = {False: [], True: []}
    for backwards, labels in answers.items():
        for start in range(0, len(data), 64):
            films = [data[index].signal for index in range(start, min(start + 64, len(data)))]
            if backwards:
                films = [reversed_film(film) for film in films]
            labels += [prediction.label for prediction in task.predict(model, films)]
    truth = [data.classes[data[index].label] for index in range(len(data))]
    return {
        "network": name, "seed": seed, "cpu_seconds": round(seconds),
        "top1": round(float(np.mean([a == t for a, t in zip(answers[False], truth, strict=True)])), 4),
        "opposite": round(float(np.mean([a == OPPOSITE[t] for a, t in zip(answers[True], truth, strict=True)])), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", default=["video", "control"], choices=["video", "control"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    facts = {"commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "device": device_name("cpu")}
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for name in args.networks:
                row = measure(Path(folder), name, seed)
                print(json.dumps(row), flush=True)
                with args.output.open("a") as file:
                    file.write(json.dumps(row | facts) + "\n")


if __name__ == "__main__":
    main()
