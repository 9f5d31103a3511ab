"""What type checkers know of the public functions, and what they would miss is refused by name."""

import dataclasses
import json
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

import focalnet
from focalnet.errors import UserError
from focalnet.models.arguments import ArchitectureOptions, ClassifierName, ModelOptions
from focalnet.models.registry import families
from focalnet.variants import VARIANTS, FocalNetConfig

PROGRAM = """\
import focalnet
from torchvision.transforms import v2

model = focalnet.create_model("focalnet_tiny_lrf", num_classes=3, drop_path_rate=0.1)
features: int = model.num_features
model.reset_classifier(4)
detector = focalnet.create_model("dino_focalnet_tiny_srf_4scale", num_queries=300)
detector.detect
run = focalnet.train(data="flowers", model="small", epochs=3, transform=v2.RandomHorizontalFlip())
top1: float = run.metrics["top1"] + focalnet.evaluate(run)["top1"]
predictor = focalnet.Predictor(run, device="cpu")


class Enough(focalnet.Callback):
    def on_epoch_end(self, run: focalnet.Run, metrics, /) -> bool:
        return metrics["top1"] > 0.9


focalnet.resume(run, callbacks=[Enough()])
"""
WRONG = {
    'focalnet.create_model("focalnet_tiny_lrf", num_clases=3)': "create_model",
    'focalnet.create_model("dino_focalnet_tiny_srf_4scale", num_querys=3)': "create_model",
    'focalnet.create_model("focalnet_tiny_lrf").num_feature.bit_length()': "",
    'focalnet.Predictor("runs/x", treshold=0.3)': "treshold",
    'focalnet.train(data="x", epoch=3)': "epoch",
    'focalnet.train(data="x", lr="fast")': "lr",
    'focalnet.train(data="x", augment="heavy")': "augment",
    'focalnet.evaluate("runs/x", splt="val")': "splt",
}


@pytest.mark.slow
def test_pyright_finds_what_is_wrong_and_nothing_else(tmp_path):
    lines = PROGRAM.splitlines() + list(WRONG)
    (tmp_path / "program.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found: dict[int, str] = {}
    for row in json.loads(done.stdout)["generalDiagnostics"]:
        number = row["range"]["start"]["line"]
        found[number] = found.get(number, "") + row["message"]
    first = len(PROGRAM.splitlines())
    assert not {lines[number]: text for number, text in found.items() if number < first}
    for number, (line, name) in enumerate(WRONG.items(), first):
        assert name in found[number], line


def test_the_types_say_what_the_options_are():
    """`models.arguments` repeats names and options for type checkers; what is added to a family is added there too."""
    assert get_args(ClassifierName) == tuple(VARIANTS)
    architecture = {field.name for field in dataclasses.fields(FocalNetConfig)}
    heads = {option for family in families() for option in family.options()}
    assert get_type_hints(ArchitectureOptions).keys() == architecture
    assert get_type_hints(ModelOptions).keys() == architecture | heads


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: focalnet.create_model("minifocal_32", num_clases=3),
            "option 'num_clases'; did you mean 'num_classes'",
        ),
        (lambda: focalnet.create_backbone("minifocal_32", focal_window=9), "did you mean 'focal_windows'"),
        (lambda: focalnet.create_model("dino_minifocal_128", num_querys=9), "did you mean 'num_queries'"),
        (lambda: focalnet.Predictor(focalnet.create_model("minifocal_32"), device="cuda:9"), "torch finds"),
        (lambda: focalnet.Predictor(focalnet.create_model("minifocal_32"), device="cpu:x"), "a device has a number"),
    ],
)
def test_mistakes_are_named_when_the_program_runs(call, sentence):
    with pytest.raises(UserError) as error:
        call()
    assert sentence in str(error.value)
