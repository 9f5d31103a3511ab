"""Synthetic sounds of which it is known where they are: does the network tell them, and does it listen to them?

    python benchmarks/sound_scenes.py           five seeds, by the recipe "sound_scenes"

Of the tenth of the spectrogram that is said to have been listened to, what share lies on the event? The cells of the
event are those in which, by itself, it is louder than a tenth of its loudest cell. Two controls need no network: a
tenth of the cells at random, and the loudest tenth of the clip.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from focalnet.bench.measure import commit, device_name
from focalnet.data.base import Samples
from focalnet.engine.config import TrainConfig
from focalnet.engine.recipes import get_recipe
from focalnet.engine.train import train
from focalnet.models.create import create_model
from focalnet.tasks import get_task

RESULTS = Path(__file__).parent / "results" / "sound_scenes.jsonl"
LOUD, SHARE = 0.1, 0.1


def shares(model, data: Samples, seed: int) -> dict[str, float]:
    """Means over the clips: the share of each mask that lies on the event."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {"listened": [], "loudest": [], "random": []}
    for index, entry in enumerate(data.entries):
        event, hum = data.reader.parts(entry)
        waves = torch.from_numpy(event + hum)[None]
        with torch.inference_mode():
            spectrogram, mask = model.spectrogram(waves)[0], model.interpret(waves, share=SHARE)[0]
            alone = model.audio.spectrogram(model.audio.spectrum(torch.from_numpy(event)[None]))[0].expm1()
        truth = alone > LOUD * alone.max()
        noise = torch.rand(mask.shape, generator=generator)
        for name, chosen in (
            ("listened", mask),
            ("loudest", spectrogram >= spectrogram.flatten().quantile(1 - SHARE)),
            ("random", noise < SHARE),
        ):
            found[name].append(float(truth[chosen].float().mean()))
        assert index < len(data)
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    facts = {"commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "device": device_name("cpu")}
    task_class = get_task("sound")
    recipe = get_recipe("sound_scenes", task_class.embedded.model)
    task = task_class(model=task_class.embedded.model, **recipe.task)
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            began = time.process_time()
            config = TrainConfig(**recipe.train | {"seed": seed, "workers": 0, "precision": "fp32"})
            run = train(task, config, Path(folder) / str(seed))
            seconds = time.process_time() - began
            model = create_model(None, weights=str(run.checkpoint("best"))).eval()
            data = task.datasets(seed).val
            best = max(json.loads(line)["top1"] for line in (run.path / "metrics.jsonl").read_text().splitlines())
            row = {"seed": seed, "cpu_seconds": round(seconds), "top1": best, **shares(model, data, seed)}
            print(json.dumps(row), flush=True)
            with args.output.open("a") as file:
                file.write(json.dumps(row | facts) + "\n")


if __name__ == "__main__":
    main()
