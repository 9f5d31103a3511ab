"""The command line: what it takes, what it says, how it ends."""

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import run
from focalnet.cli import COMMANDS, HELP
from focalnet.cli.training import GROUPS, parse_train
from focalnet.models import catalogue
from focalnet.models.registry import list_models
from focalnet.tasks import list_tasks


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys)
    assert (code, out) == (0, HELP)
    for command in COMMANDS:
        assert f"focalnet {command} " in HELP


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_teaches(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"focalnet {command}" in out
    assert len(out.splitlines()) > 5


def test_version(capsys):
    import focalnet

    assert run(capsys, "--version") == (0, f"{focalnet.__version__}\n", "")


def test_unknown_command_suggests(capsys):
    code, out, err = run(capsys, "trian")
    assert (code, out) == (2, "")
    assert err == "focalnet: There is no command 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize("task", list_tasks())
def test_train_shows_at_most_40_flags_in_groups(capsys, task):
    _, out, _ = run(capsys, "train", "--task", task, "--help")
    flags = re.findall(r"^\W*(--[a-z][a-z-]*)", out, flags=re.MULTILINE)
    assert 20 < len(flags) <= 40, sorted(flags)
    groups = re.findall(r"^\W+(\w+) options \W+$", out, flags=re.MULTILINE)
    known = [group for group in GROUPS if group in groups or group != "augmentation"]  # which speech has not
    assert groups == known, "an option stands in no group: give it a place in GROUPS"


def test_help_and_tables_need_no_torch():
    """Torch takes seconds to import: whatever only tells about the library does without."""
    script = f"""
import sys
from focalnet.cli import main
for arguments in [["--version"], ["models"], ["recipes"], *[[name, "--help"] for name in {[*COMMANDS]}]]:
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code
print([name for name in ("torch", "torchvision", "transformers", "matplotlib") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "seconds"), [(["train", "--help"], 3.0), (["models"], 1.0)])
def test_help_and_tables_answer_soon(arguments, seconds):
    command = [sys.executable, "-m", "focalnet", *arguments]

    def took() -> float:
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        return time.perf_counter() - began

    assert statistics.median(took() for _ in range(5)) <= seconds


SIZES = Path(catalogue.__file__).with_name("sizes.json")


def test_sizes_of_all_networks_are_kept():
    assert list(json.loads(SIZES.read_text())) == list_models(), "count the new ones with catalogue.count"


@pytest.mark.slow
def test_sizes_are_what_is_counted():
    rows = json.loads(SIZES.read_text())
    assert {name: list(catalogue.count(name)) for name in rows} == rows


def test_unknown_option_suggests_the_nearest(capsys):
    code, _, err = run(capsys, "train", "--bach-size", 3)
    assert code == 2
    assert "--batch-size" in err
    assert "Traceback" not in err


def test_the_model_chooses_the_task():
    task, config, choice = parse_train(["--model", "dino_focalnet_tiny_srf_4scale", "--data", "coco"])
    assert (task.name, choice.task, choice.recipe, task.augment) == ("detect", "detect", "finetune_detector", "detr")
    assert config.backbone_lr == 0.1
    task, config, choice = parse_train(["--task", "panoptic"])
    assert (task.model, choice.recipe, task.weights) == ("mask2former_minifocal_128", "digit_scenes", None)
    task, config, choice = parse_train(["--task", "detect", "--recipe", "coco_3x", "--data", "coco"])
    assert (task.model, config.epochs, task.drop_path) == ("mask_rcnn_focalnet_tiny_lrf", 36, 0.3)


def test_defaults_follow_the_recipe():
    task, config, choice = parse_train([])
    assert (task.model, task.weights, task.augment, choice.recipe) == ("minifocal_32", None, "digits", "digits")
    task, config, choice = parse_train(["--data", "flowers", "--model", "focalnet_tiny_lrf"])
    assert (task.model, task.weights, choice.recipe) == ("focalnet_tiny_lrf", "official", "finetune")
    task, config, choice = parse_train(["--recipe", "imagenet1k", "--model", "focalnet_base_srf", "--lr", "2e-3"])
    assert (task.drop_path, task.mixing, config.epochs, config.lr, config.batch_size) == (
        0.5,
        (0.8, 1.0),
        300,
        2e-3,
        1024,
    )


@pytest.mark.parametrize(
    ("arguments", "reachable", "model", "recipe"),
    [
        ([], True, "focalnet_tiny_lrf", "finetune"),
        ([], False, "minifocal_128", "scratch"),
        (["--weights", "None"], True, "minifocal_128", "scratch"),
        (["--weights", "runs/mine"], False, "focalnet_tiny_lrf", "finetune"),
        (["--model", "small"], True, "minifocal_128", "scratch"),
        (["--model", "focalnet_tiny_lrf"], False, "focalnet_tiny_lrf", "finetune"),  # its download tells why it fails
        (["--model", "focalnet_tiny_lrf", "--weights", "None"], True, "focalnet_tiny_lrf", "scratch"),
        (["--recipe", "scratch"], True, "minifocal_128", "scratch"),
        (["--recipe", "imagenet1k"], False, "focalnet_tiny_lrf", "imagenet1k"),
        (["--task", "detect"], False, "mask_rcnn_minifocal_128", "scratch_detector"),
        (["--task", "detect", "--model", "small"], True, "mask_rcnn_minifocal_128", "scratch_detector"),
        (["--model", "dino_minifocal_64"], True, "dino_minifocal_64", "scratch_detector"),
        (["--task", "segment", "--weights", "None"], True, "upernet_minifocal_128", "scratch_segmenter"),
        (["--task", "panoptic"], True, "mask2former_focalnet_tiny_lrf", "finetune_segmenter"),
    ],
)
def test_a_folder_starts_from_weights_or_from_scratch(caplog, monkeypatch, arguments, reachable, model, recipe):
    monkeypatch.setattr("focalnet.engine.recipes.base.is_reachable", lambda entry: reachable)
    caplog.set_level("INFO", "focalnet")
    task, _, choice = parse_train(["--data", "folder", *arguments])
    assert (task.model, choice.recipe) == (model, recipe)
    assert (task.weights is None) == (recipe in ("scratch", "scratch_detector", "scratch_segmenter", "imagenet1k"))
    unasked = not reachable and {"--model", "--weights", "--recipe"}.isdisjoint(arguments)
    assert (f"{model} is trained from random weights: the weights of" in caplog.text) == unasked


def test_what_is_asked_for_is_not_fitted_to_the_data():
    few = {"batch_size": "least_steps", "epochs": "least_total"}
    for asked in ([], ["--batch-size", "64"], ["--epochs=9"], ["--batch_size=3", "--epochs", "9"]):
        _, config, _ = parse_train(["--data", "folder", "--model", "small", *asked])
        for name, least in few.items():
            given = any(flag.lstrip("-").replace("-", "_").startswith(name) for flag in asked)
            assert (getattr(config, least) == 0) == given


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "focalnet_tiny"], "There is no model 'focalnet_tiny'; did you mean 'focalnet_tiny_"),
        (["--recipe", "imagenet"], "There is no recipe 'imagenet'; did you mean 'imagenet"),
        (["--task", "clasify"], "There is no task 'clasify'; did you mean 'classify'?"),
        (["--epochs", "0"], "--epochs is 0; give 1 or more."),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--num-classes", "11"], "--num-classes is 11, but digits has 10 classes"),
        (["--lr", "nan"], "--lr is nan; give a finite number."),
        (["--mixing", "0", "inf"], "--mixing is inf; give a finite number."),
        (["--val-fraction", "1.5"], "--val-fraction is 1.5; give a share between 0 and 1."),
        (["--image-size", "7"], "--image-size is 7; minifocal_32 needs"),
        (["--freeze", "2"], "--freeze keeps the backbone as it is, which is random without --weights: give both."),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--trackers", "wandb"], "--trackers wandb needs the package wandb: pip install wandb."),
    ],
)
def test_mistakes_get_one_sentence_and_leave_nothing(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train", *arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_models_as_json(capsys):
    code, out, _ = run(capsys, "models", "*tiny_lrf*", "--json")
    assert code == 0
    assert json.loads(out)[0] == {
        "model": "focalnet_tiny_lrf", "parameters": 28.6, "gflops": 4.5, "pixels": 224, "top1": 82.3, "licence": "mit",
        "weights": ["official", "timm", "transformers"],
    }  # fmt: skip


def test_detectors_and_segmenters_are_listed(capsys):
    code, out, _ = run(capsys, "models", "dino*fl4*", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [(row["model"], row["parameters"]) for row in rows] == [
        ("dino_focalnet_large_fl4_5scale", 228.1), ("dino_focalnet_huge_fl4_5scale", 712.4),
    ]  # fmt: skip
    assert rows[0]["weights"][0] == "focalnet_large_fl4_o365_finetuned_on_coco.pth"
    code, out, err = run(capsys, "models", "detr")
    assert (code, out) == (2, "")
    assert "No network is called 'detr'" in err


def test_recipes_are_listed(capsys):
    code, out, _ = run(capsys, "recipes", "focalnet_base_lrf")
    assert code == 0
    assert "imagenet1k" in out
    assert "83.9" in out


@pytest.mark.parametrize("command", ["resume", "evaluate", "predict", "explain"])
def test_a_folder_that_is_no_run(capsys, tmp_path, command):
    code, _, err = run(capsys, command, tmp_path / "nothing", *(["x.png"] if command == "predict" else []))
    assert code == 2
    assert "nothing" in err
    assert "Traceback" not in err


def test_help_tells_the_recipe_of_its_defaults(capsys):
    _, out, _ = run(capsys, "train", "--recipe", "imagenet1k", "--help")
    assert "recipe 'imagenet1k'" in " ".join(out.split())
    assert "finetune" not in out
