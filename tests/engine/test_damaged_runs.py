"""What a run folder says is checked: files changed by hand end in one sentence that names the file."""

import json
import shutil
import zlib
from pathlib import Path

import pytest
import torch

from focalnet.engine.record import load_run
from focalnet.engine.run import RunFolder
from focalnet.errors import UserError
from focalnet.inputs import from_dict
from focalnet.models.create import create_model
from focalnet.variants import FocalNetConfig
from focalnet.weights.card import Evaluation

KEPT = Path(__file__).parents[1] / "fixtures" / "runs" / "pictures"


@pytest.fixture
def run(tmp_path):
    shutil.copytree(KEPT, tmp_path / "run")
    return tmp_path / "run"


def change(path, *keys, to):
    content = json.loads(path.read_text())
    target = content
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = to
    path.write_text(json.dumps(content))


def seal(folder):
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    facts = {name: {"bytes": len(content), "crc32": zlib.crc32(content)} for name, content in contents.items()}
    (folder / "manifest.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("keys", "to", "sentence"),
    [
        (("task",), [], "config.json: task is a list of 0, wanted is an object"),
        (("task", "name"), 3, "config.json: the name of the task is 3, wanted is text"),
        (("task", "name"), "clasify", "no task 'clasify'; did you mean 'classify'"),
        (("task", "image_size"), "16", "config.json: task: image_size is '16'"),
        (("task", "image_size"), -1, "config.json: task: --image-size is"),
        (("task", "mixing"), [0.0], "config.json: task: mixing is a list of 1"),
        (("task", "augment"), "lihgt", "config.json: task: augment is 'lihgt', wanted is"),
        (("task", "drop_path"), float("nan"), "config.json is damaged: .*NaN"),
        (("train", "epochs"), 1.5, "config.json: train: epochs is 1.5"),
        (("train", "workers"), 10**6, "config.json: train: --workers is 1000000; give 512 at most"),
        (("train", "seed"), 10**30, "config.json is damaged: .*31 digits"),
        (("train", "color"), 1, "no field of .*config.json: train 'color'"),
        (("data", "training pictures"), "24", "config.json: data: training samples is '24'"),
        (("data", "classes"), [1, 2], r"config.json: data: classes\[0\] is 1"),
        (("recipe",), 3, "config.json: recipe is 3"),
    ],
)
def test_what_a_run_was_started_with(run, keys, to, sentence):
    change(run / "config.json", *keys, to=to)
    with pytest.raises(UserError, match=sentence):
        load_run(RunFolder(run))


@pytest.mark.parametrize(
    ("keys", "to", "sentence"),
    [
        (("architecture", "depths"), 3, "architecture: depths is 3, wanted is a list of a whole number"),
        (("architecture", "depths"), [10**9, 1], r"architecture: depths=.*; give 1 to 1000"),
        (("architecture", "embed_dim"), 10**6, "architecture: embed_dim=1000000; give 1 to 16384"),
        (("architecture", "embed_dim"), 16384, "do not belong together: the description says embed_dim=16384"),
        (("architecture", "mlp_ratio"), "4", "architecture: mlp_ratio is '4', wanted is a number"),
        (("architecture", "focal_windows"), [3, 3, 3], "architecture: focal_windows=.* has 3 entries"),
        (("num_classes",), 500_000, "500000 classes|2 class names for 500000"),
        (("classes",), ["a", 3], r"classes\[1\] is 3, wanted is text"),
        (("classes",), "ab", "classes is 'ab', wanted is"),
        (("preprocessing", "input_size"), 10**9, "preprocessing: input_size is 1000000000"),
        (("preprocessing", "crop_pct"), 1e-9, "preprocessing: crop_pct is 1e-09"),
        (("preprocessing", "std"), [0, 1, 1], r"preprocessing: mean is .* std \(0, 1, 1\)"),
        (("preprocessing", "interpolation"), "lanczos", "preprocessing: interpolation is 'lanczos'"),
        (("preprocessing",), None, "preprocessing is None"),
        (("head",), "resnet", "resnet"),
        (("head_options",), {"x": 1}, "no option of classifier 'x'"),
        (("said",), {}, "no field of .* 'said'"),
    ],
)
def test_what_a_model_is(run, keys, to, sentence):
    change(run / "best" / "config.json", *keys, to=to)
    with pytest.raises(UserError, match=sentence):
        create_model(weights=run / "best")


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"state.pt": 3}', '{"state.pt": {"bytes": 1}}', "[" * 100_000])
def test_a_manifest_of_nothing_seals_nothing(run, text):
    (run / "last" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"last is damaged \(manifest\.json"):
        RunFolder(run).checkpoint("last")


def test_a_manifest_names_files_beside_it_only(run):
    manifest = json.loads((run / "last" / "manifest.json").read_text())
    (run / "last" / "manifest.json").write_text(json.dumps({**manifest, "../config.json": {"bytes": 1, "crc32": 1}}))
    with pytest.raises(UserError, match=r"a strange entry for '\.\./config\.json'"):
        RunFolder(run).checkpoint("last")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("[1]", "metrics.jsonl line 2 is a list of 1"),
        ('{"epoch": 2}', "metrics.jsonl line 2 lacks step"),
        ('{"epoch": "2", "step": 48}', "metrics.jsonl line 2: epoch is '2', no number"),
        ('{"epoch": 2, "step": 48, "top1": []}', "metrics.jsonl line 2: top1 is a list of 0"),
        ('{"epoch": 2,', "metrics.jsonl line 2 is damaged"),
    ],
)
def test_rows_of_metrics(run, line, sentence):
    with open(run / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=sentence):
        RunFolder(run).rows()


def test_rows_without_a_number_are_read(run):
    RunFolder(run).append_row({"epoch": 2, "step": 48, "top1": float("nan")})
    assert "NaN" not in (run / "metrics.jsonl").read_text()
    row = RunFolder(run).rows()[1]
    assert row["top1"] != row["top1"]


def test_an_evaluation_of_something_else(run):
    (run / "evaluation.json").write_text('{"metrics": [1]}')
    with pytest.raises(UserError, match=r"evaluation\.json: metrics is a list of 1"):
        Evaluation.of_run(run)


def test_a_state_of_something_else(run, monkeypatch):
    """It is sealed, so only its content tells."""
    from focalnet.engine.train import resume

    shutil.copytree(KEPT.parent / "images", run.parent / "images")
    monkeypatch.chdir(run.parent)
    for content in ({"a": 1}, torch.nn.Linear(2, 2), {"optimizers": {}, "position": {}}):
        torch.save(content, run / "last" / "state.pt")
        seal(run / "last")
        with pytest.raises(UserError, match=r"state\.pt is not the state of this run") as caught:
            resume(run)
        assert "weights_only" not in str(caught.value)


def test_bounds_are_said_of_what_a_call_gives_too():
    with pytest.raises(UserError, match="embed_dim=0; give 1 to"):
        FocalNetConfig(embed_dim=0, depths=(1,), focal_levels=(1,))
    with pytest.raises(UserError, match="no kind of input 'pictures'"):
        from_dict({"kind": "pictures"})
