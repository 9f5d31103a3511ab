"""A small codec of spoken sentences beside k-means of equal bits: how much of the features do the tokens give back?

    python benchmarks/speech.py              three seeds, by the recipe "small_codec"
    python benchmarks/speech.py --dwer       also dWER (PocketSphinx), which takes most of the time

k-means has a code for each of the codec's tokens, learned on the same features of the training sentences, and sees one
frame at a time. Errors are shares of the variance of the features on sentences that neither was trained on, a sixth of
them in a voice that neither has heard. The codec is whichever way it falls: a table of frames is hard to beat where a
synthesizer repeats its frames. Rows are printed, and appended as JSON lines with commit and device.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from focalnet.bench.measure import commit, device_name
from focalnet.engine.config import TrainConfig
from focalnet.engine.evaluate import evaluate
from focalnet.engine.recipes import get_recipe
from focalnet.engine.train import train
from focalnet.metrics.speech import Codebook, ShareOfVariance
from focalnet.models.create import create_model
from focalnet.tasks import get_task

RESULTS = Path(__file__).parent / "results" / "speech.jsonl"


def frames_of(model, samples) -> list[np.ndarray]:
    """The features of each sound, (N, F)."""
    with torch.inference_mode():
        return [model.encoder(torch.from_numpy(samples[i].signal)[None])[0].numpy() for i in range(len(samples))]


def k_means(train_frames: list[np.ndarray], val_frames: list[np.ndarray], bits: int, seed: int) -> dict[str, float]:
    """Error and entropy of k-means with 2 ** bits codes."""
    codes = MiniBatchKMeans(2**bits, init="random", n_init=1, batch_size=2**bits, max_iter=10, random_state=seed)
    codes.fit(np.concatenate(train_frames))
    error, codebook = ShareOfVariance(), Codebook(bits)
    for frames in val_frames:
        tokens = codes.predict(frames)
        error.update(torch.from_numpy(codes.cluster_centers_[tokens]), torch.from_numpy(frames))
        codebook.update(torch.from_numpy(tokens))
    return {"feature_error": error.compute() or 0.0, **codebook.compute()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", default=None, help="a folder of speech; without it, spoken sentences")
    parser.add_argument("--dwer", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    facts = {"commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "device": device_name("cpu")}
    task_class = get_task("codec")
    recipe = get_recipe("small_codec", task_class.embedded.model)
    task = task_class(model=task_class.embedded.model, data=args.data, dwer=args.dwer, **recipe.task).located()
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            began = time.process_time()
            config = TrainConfig(**recipe.train | {"seed": seed, "workers": 0, "precision": "fp32"})
            run = train(task, config, Path(folder) / str(seed))
            seconds = time.process_time() - began
            metrics = dict(evaluate(str(run.path), workers=0))
            metrics.pop("val_samples_per_second")
            data, model = task.datasets(seed), create_model(None, weights=str(run.checkpoint("best"))).eval()
            table = k_means(frames_of(model, data.train), frames_of(model, data.val), model.bits, seed)
            for name, found in (("codec", {"cpu_seconds": seconds, **metrics}), (f"k-means, {model.bits} bits", table)):
                row = {"network": name, "seed": seed, "data": task.data}
                row |= {key: round(value, 4) for key, value in found.items()}
                print(json.dumps(row), flush=True)
                with args.output.open("a") as file:
                    file.write(json.dumps(row | facts) + "\n")


if __name__ == "__main__":
    main()
