"""The run folders kept under `fixtures/runs`: how to work with one, and what it is asked.

They were made by `fixtures/runs/make.py`, with the code of that day, and stopped before their end. Two things stand
between such a run and a code that knows nothing of it, and `borrow` sees to both:

    data            of the scenes of digits a run saw the first few, as many as its config.json tells
    architecture    the table of variants has the tiny trunk of the run under the run's own name; only a detector or
                    segmenter in training asks it, because weights of another shape than the name's are refused
"""

import contextlib
import dataclasses
import io
import json
import shutil
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import focalnet
from focalnet.cli import main
from focalnet.tasks import get_task

FOLDER = Path(__file__).parent / "fixtures" / "runs"
RUNS = ("classify", "pictures", "mask_rcnn", "dino", "upernet", "mask2former")
TIMES = {"seconds"} | {f"{side}{what}_per_second" for side in ("", "val_") for what in ("images", "samples")}
LATER = {f"train_{score}" for score in ("top1", "box_ap", "miou", "pq")}
"""What rows have since the runs were made: the score on a sample of the training images."""
SIDES = ("training", "validation")
PROBES = 5


class First:
    """The first samples of a data set, which is otherwise as it is."""

    def __init__(self, dataset, count):
        self.dataset, self.count = dataset, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.dataset[range(self.count)[index]]

    @property
    def sizes(self):
        return self.dataset.sizes[: self.count]

    def __getattr__(self, name):
        return getattr(self.dataset, name)


def see_few(patch, task, train, val):
    """Let the task of this name see `train` and `val` pictures only."""
    kind = get_task(task)
    datasets = kind.datasets

    def few(self, seed):
        data = datasets(self, seed)
        assert len(data.train) >= train
        assert len(data.val) >= val
        return dataclasses.replace(data, train=First(data.train, train), val=First(data.val, val))

    patch.setattr(kind, "datasets", few)


def shrink(patch, variant, architecture):
    """Put `architecture` (a dictionary) into the table of variants, wherever a module holds it."""
    config = focalnet.FocalNetConfig
    table = sys.modules[config.__module__].VARIANTS
    other = MappingProxyType({**table, variant: config.from_dict(architecture)})
    for name, module in list(sys.modules.items()):
        if name.startswith("focalnet.") and vars(module).get("VARIANTS") is table:
            patch.setattr(module, "VARIANTS", other)


def use_cpu(patch):
    """The results were recorded on a processor, with one thread."""
    patch.setattr(torch.cuda, "is_available", lambda: False)
    torch.set_num_threads(1)


def borrow(name, folder, patch):
    """A copy of a kept run in `folder`, where this process then stands, to be resumed and used as on the day it was
    made. `patch` is pytest's `monkeypatch`."""
    run = folder / name
    shutil.copytree(FOLDER / name, run, ignore=shutil.ignore_patterns("expected.json"))
    if not (run / "best").exists():  # it was equal to `last`
        shutil.copytree(run / "last", run / "best")
    shutil.copytree(FOLDER / "images", folder / "images")
    patch.chdir(folder)
    use_cpu(patch)
    record, model = read(run / "config.json"), read(run / "last" / "config.json")
    if record["task"]["name"] != "classify":
        see_few(patch, record["task"]["name"], *(record["data"][f"{side} pictures"] for side in SIDES))
        shrink(patch, model["variant"], model["architecture"])
    return run


def resume(run):
    """Go on with a run to its end: the rows of all epochs, without times, and some of the last weights."""
    command("resume", run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {"rows": [without_times(row) for row in rows], "weights": probes(run)}


def probes(run):
    """The first three numbers and the sum of five matrices; vectors may have a gradient of nothing but noise."""
    weights = load_file(run / "last" / "model.safetensors")
    names = sorted(name for name, weight in weights.items() if weight.ndim > 1)
    return {
        name: [*weights[name].flatten()[:3].tolist(), weights[name].double().sum().item()]
        for name in names[:: -(-len(names) // PROBES)]
    }


def evaluate(run):
    """The figures of `best`, without times."""
    command("evaluate", run, "--workers", 0, "--json", "figures.json")
    return without_times(read(Path("figures.json")))


def threshold(run):
    """Least score that lets every answer through, where the task has one."""
    return 0.0 if read(run / "config.json")["task"]["name"] in ("detect", "panoptic") else None


def predict(run):
    """The prediction for the fixed picture, by the command line."""
    least = threshold(run)
    words = [] if least is None else ["--threshold", least]
    row = json.loads(command("predict", run, picture(run), "--json", *words))
    assert row.pop("source") == str(picture(run))
    return row


def explain(run):
    """Of each array of the explanation: shape, mean and first numbers."""
    classifier = read(run / "config.json")["task"]["name"] == "classify"
    command("explain", run, picture(run), "--out", "explanation.png", *(["--grad-cam"] if classifier else []))
    with np.load("explanation.npz") as arrays:
        return {
            name: {"shape": list(x.shape), "mean": float(x.mean()), "first": x.ravel()[:4].astype(float).tolist()}
            for name, x in arrays.items()
        }


def picture(run):
    """The picture that is asked about."""
    return FOLDER / ("digit.png" if read(run / "config.json")["task"]["name"] == "classify" else "scene.png")


def command(*words):
    """Run the command line in this process; returns what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main([str(word) for word in words])
    return out.getvalue()


def read(path):
    return json.loads(path.read_text())


def without_times(row):
    return {name: value for name, value in row.items() if name not in TIMES | LATER}


def assert_near(found, expected, at="", **tolerance):
    """The same structure, words and integers; numbers near each other. Boxes are rounded to hundredths of a pixel.
    Pixels are counted after a choice between nearly equal scores, so a few may change sides."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), at
        for key in expected:
            assert_near(found[key], expected[key], f"{at}.{key}", **tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected), at
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_near(*pair, f"{at}[{index}]", **tolerance)
    elif ".box[" in at:
        assert found == pytest.approx(expected, abs=0.02), at
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, **tolerance), at
    elif at.endswith(".pixels"):
        assert found == pytest.approx(expected, rel=1e-2, abs=2), at
    else:
        assert found == expected, at
