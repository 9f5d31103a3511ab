"""Training and evaluation from Python: the command line's options, callbacks, a transform and a loss of one's own."""

import json
import os
import random
import types
from typing import ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import ImageOps

import focalnet
from class_files import dark_and_light
from focalnet.api import TrainOptions
from focalnet.cli.training import parse_train
from focalnet.engine.choice import choose
from focalnet.engine.config import TrainConfig
from focalnet.engine.loader import _seeded_all
from focalnet.errors import UserError
from focalnet.tasks.options import OPTIONS

SMALL = {
    "model": "minifocal_32", "weights": None, "image_size": 32, "epochs": 2, "batch_size": 8, "workers": 0,
    "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return dark_and_light(tmp_path_factory.mktemp("data"), (32, 32), dark=10, light=10)


@pytest.fixture
def bare(monkeypatch):
    """Runs without a report, which takes longer than the rest."""
    monkeypatch.setattr("focalnet.engine.train.write_run_report", lambda run, *_: (run.path / "report.html").touch())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data", "flowers", "--model", "small"],
        ["--recipe", "imagenet1k", "--model", "focalnet_base_srf", "--lr", "0.002"],
        ["--task", "detect", "--data", "coco", "--recipe", "coco_3x", "--batch-size", "4"],
        ["--data", "flowers", "--weights", "None", "--model", "focalnet_tiny_lrf", "--mixing", "0.8", "1.0"],
    ],
)
def test_options_mean_what_they_mean_on_the_command_line(arguments):
    said, name = {}, None
    for word in arguments:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
        else:
            value = {"None": None}.get(word, word)
            if name in ("lr", "batch_size", "mixing"):
                value = json.loads(word)
            said[name] = (said[name], value) if name in said else value
    assert choose(said) == parse_train(arguments)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_clases": 3}, "There is no option of --task classify 'num_clases'; did you mean 'num_classes'"),
        ({"lr": "fast"}, "focalnet.train: lr is 'fast', wanted is a number; give another value."),
        ({"epochs": 0}, "focalnet.train: --epochs is 0; give 1 or more."),
        ({"model": "focalnet_tiny"}, "There is no model 'focalnet_tiny'; did you mean"),
        ({"device": "cuda:7"}, "--device is cuda:7, and torch finds"),
        ({"device": "gpu"}, "There is no device 'gpu'"),
        ({"transform": abs, "task": "detect", "augment": "digits"}, "augment is 'digits', wanted is"),
    ],
)
def test_mistakes_get_one_sentence_and_leave_nothing(tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        focalnet.train(**options)
    assert sentence in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_types_say_what_the_options_are():
    """`TrainOptions` repeats the dataclasses for type checkers, which cannot read them otherwise."""
    fields: dict[str, set] = {}
    for cls in (*OPTIONS.values(), TrainConfig):
        for name, hint in get_type_hints(cls).items():
            if get_origin(hint) is not ClassVar:
                fields.setdefault(name, set()).update(alternatives(hint))
    fields["weights"].add(os.PathLike[str])
    del fields["data"], fields["model"]
    assert {name: alternatives(hint) for name, hint in get_type_hints(TrainOptions).items()} == fields


def alternatives(hint):
    """The members of a union, and the values of a `Literal`."""
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return {each for part in get_args(hint) for each in alternatives(part)}
    return {hint}


def test_a_run_and_an_evaluation_are_data(folder, tmp_path):
    run = focalnet.train(data=folder, out=tmp_path / "run", **{**SMALL, "epochs": 1})
    assert run.path == tmp_path / "run"
    assert [row["epoch"] for row in run.history] == [1]
    assert run.finished
    assert run.config["recipe"] == "scratch"
    assert 0 <= run.metrics["top1"] <= 1
    evaluation = focalnet.evaluate(run, workers=0, device="cpu")
    assert evaluation.score == evaluation["top1"] == pytest.approx(run.metrics["top1"])
    assert evaluation.samples == 4
    assert np.sum(evaluation.details["confusion"]) == 4
    assert focalnet.Predictor(run)(folder / "dark" / "0.png").label in ("dark", "light")
    assert focalnet.Run(str(run)).metrics == run.metrics
    assert focalnet.create_model(weights=run).spec.classes == ("dark", "light")


class Told(focalnet.Callback):
    def __init__(self, steps=None, epochs=None, fail=False):
        self.steps, self.epochs, self.fail, self.heard = steps, epochs, fail, []

    def on_step(self, run, metrics):
        self.heard.append(("step", metrics["epoch"], metrics["step"]))
        return self.end(self.steps, metrics["step"])

    def on_epoch_end(self, run, metrics):
        self.heard.append(("epoch", metrics["epoch"], len(run.history)))
        return self.end(self.epochs, metrics["epoch"])

    def end(self, last, now):
        if last == now and self.fail:
            raise ZeroDivisionError("of the callback")
        return last == now


@pytest.mark.usefixtures("bare")
def test_callbacks_are_told_and_may_end_the_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("focalnet.engine.losses.Losses.due", False)  # as on a GPU, where losses wait to be looked at
    told = Told()
    run = focalnet.train(data=folder, out=tmp_path / "whole", callbacks=[told], **SMALL)
    assert told.heard == [
        ("step", 1, 1), ("step", 1, 2), ("epoch", 1, 1), ("step", 2, 3), ("step", 2, 4), ("epoch", 2, 2),
    ]  # fmt: skip
    whole = torch.load(run.path / "last" / "state.pt", weights_only=True)
    for name, callback in (("step", Told(steps=3)), ("epoch", Told(epochs=1))):
        run = focalnet.train(data=folder, out=tmp_path / name, callbacks=[callback, Told()], **SMALL)
        assert not run.finished
        assert (run.path / "report.html").exists(), "it is written after each epoch"
        assert focalnet.resume(run, device="cpu").finished
        again = torch.load(run.path / "last" / "state.pt", weights_only=True)
        assert again["position"] == whole["position"], "the bits of a run that nothing ended"


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("where", [{"steps": 3}, pytest.param({"epochs": 1}, marks=pytest.mark.slow)])
def test_an_exception_of_a_callback_leaves_a_checkpoint(folder, tmp_path, where):
    with pytest.raises(ZeroDivisionError, match="of the callback"):
        focalnet.train(data=folder, out=tmp_path / "run", callbacks=[Told(**where, fail=True)], **SMALL)
    assert focalnet.resume(tmp_path / "run", device="cpu").finished


@pytest.mark.usefixtures("bare")
def test_own_transform_and_loss(folder, tmp_path):
    seen = []

    def transform(image):
        seen.append(image.size)
        return ImageOps.mirror(image)

    def loss(logits, targets):
        return F.binary_cross_entropy_with_logits(logits, targets)

    run = focalnet.train(data=folder, out=tmp_path / "run", transform=transform, loss=loss, **SMALL)
    assert seen == [(32, 32)] * 32
    assert run.config["own"] == ("transform", "loss")
    assert run.config["task"]["augment"] == "none"
    with pytest.raises(UserError, match=r"its own transform and loss, .* give it again: focalnet.resume"):
        focalnet.resume(run, epochs=3)
    assert len(focalnet.resume(run, epochs=3, transform=transform, loss=loss, device="cpu").history) == 3
    assert focalnet.evaluate(run, workers=0, device="cpu").samples == 4
    plain = focalnet.train(data=folder, out=tmp_path / "plain", **{**SMALL, "epochs": 1})
    assert "own" not in json.loads((plain.path / "config.json").read_text())
    with pytest.raises(UserError, match="began without its own loss; leave it out, or start a new run"):
        focalnet.resume(plain, epochs=3, loss=loss)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"transform": lambda image: None}, "the transform gives NoneType"),
        ({"transform": lambda image: torch.randn(3, 8, 8)}, "leave Normalize out"),
        ({"loss": lambda logits, targets: logits}, "the loss gives a tensor of shape (8, 2); wanted is one number"),
        ({"loss": lambda logits, targets: 3.0}, "the loss gives float"),
    ],
)
def test_what_own_functions_must_give(folder, tmp_path, own, sentence):
    torch.manual_seed(0)
    with pytest.raises(UserError) as error:
        focalnet.train(data=folder, out=tmp_path / "run", **own, **SMALL)
    assert sentence in str(error.value)
    assert not (tmp_path / "run").exists()


def test_random_numbers_of_own_transforms_come_from_the_seed():
    def draw():
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    assert _seeded_all(3, draw) == _seeded_all(3, draw) != _seeded_all(4, draw)
