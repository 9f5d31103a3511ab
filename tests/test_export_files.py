"""Exported files compute what their networks do, say what they are, and predict by the code of the library."""

import functools
import importlib
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import focalnet
from command_line import run
from focalnet.errors import UserError
from focalnet.exporting import export
from focalnet.exporting.check import _alike, _difference, _same
from focalnet.exporting.tracing import part_names
from focalnet.models.create import create_model
from focalnet.models.exported import ExportRecord, open_exported, read_record
from focalnet.models.exported import around as made_around
from focalnet.models.runtimes import KEY, reason
from focalnet.structures import encode_masks
from focalnet.tasks.segment import SegmentPrediction

SMALL = {"embed_dim": 8, "depths": (1, 1, 1), "focal_levels": 1}
checking = importlib.import_module("focalnet.exporting.check")  # `exporting.check` is its function
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = create_model("minifocal_32", classes=["ant", "bee", "fly"], **SMALL).eval()
    torch.nn.init.normal_(made.head.weight)
    return made


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (40 + 7 * n, 50, 3), dtype=np.uint8) for n in range(4)]


@pytest.fixture(scope="module")
def file_of(model, images, tmp_path_factory):
    """What `export` wrote in a format; each is written once."""
    folder = tmp_path_factory.mktemp("exported")

    def write(kind):
        return export(model, folder / f"net{FORMATS[kind]}", samples=images, parts=kind == "onnx")

    return functools.cache(write)


@pytest.mark.parametrize(
    "kind", ["onnx", pytest.param("openvino", marks=pytest.mark.slow), pytest.param("torch", marks=pytest.mark.slow)]
)
def test_a_file_predicts_as_its_network(file_of, model, images, kind):
    written = file_of(kind)
    assert written.check.difference < 1e-5
    assert written.check.agree == (4, 4)
    assert written.check.shapes == ((1, 3, 32, 32), (2, 3, 32, 32), (3, 3, 32, 32), (1, 3, 64, 96))
    assert written.record.free == (0, 2, 3)
    ours, theirs = focalnet.Predictor(model), focalnet.Predictor(str(written.path))
    assert theirs.model.spec.classes == ("ant", "bee", "fly")
    for image in images:
        one, two = ours(image), theirs(image)
        assert two.label == one.label
        assert two.score == pytest.approx(one.score, abs=1e-5)
    batches = [prediction.label for _, prediction in theirs.stream(images, batch_size=3)]
    assert batches == [ours(image).label for image in images]
    with torch.inference_mode():
        odd = torch.randn(2, 3, 45, 71)
        assert torch.allclose(theirs.model(odd), model(odd), atol=1e-5)


@pytest.mark.parametrize("kind", ["onnx", "torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_file_says_nothing_of_the_machine_it_was_written_on(file_of, kind):
    path = file_of(kind).path
    content = path.read_bytes()
    if kind == "torch":
        with zipfile.ZipFile(path) as archive:
            content = b"".join(map(archive.read, archive.namelist()))
    assert b"stack_trace" not in content
    assert b".py" not in content


def test_gates_and_modulators_are_outputs_on_request(file_of, model):
    opened, inputs = open_exported(file_of("onnx").path), torch.randn(2, 3, 45, 71)
    with torch.inference_mode(), focalnet.capture(model) as parts:
        model(inputs)
        found = opened.computed(inputs)
    assert list(found) == ["map_0", *(f"{part}_{stage}" for stage in (1, 2, 3) for part in ("gates", "modulator"))]
    for stage, of_block in enumerate(parts.values(), 1):
        assert torch.allclose(found[f"gates_{stage}"], of_block.gates.movedim(-1, 1), atol=1e-5)
        assert torch.allclose(found[f"modulator_{stage}"], of_block.modulator.norm(dim=-1), atol=1e-5)


def test_what_has_no_gates_is_said():
    with pytest.raises(UserError, match="has no gates and modulators"):
        part_names(torch.nn.Linear(2, 2))


def test_the_commands_take_files(file_of, images, tmp_path, capsys):
    from PIL import Image

    for name in ("ant", "bee", "fly"):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images[:2]):
            Image.fromarray(image + len(name)).save(tmp_path / name / f"{number}.png")
    path = file_of("onnx").path
    code, out, err = run(capsys, "predict", path, tmp_path / "ant", "--json")
    assert code == 0, err
    assert len([json.loads(line) for line in out.splitlines()]) == 2
    code, out, err = run(capsys, "evaluate", path, "--data", tmp_path, "--workers", "0")
    assert code == 0, err
    assert "top1" in out
    code, out, err = run(capsys, "export", path, tmp_path / "again.onnx")
    assert code == 2
    assert "in an exported file already" in err


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_kept(model, images, tmp_path, monkeypatch):
    from focalnet.exporting import formats

    def write_other(program, record, path):
        torch.manual_seed(1)
        other = create_model("minifocal_32", num_classes=3, **SMALL).eval()
        from focalnet.exporting.tracing import trace

        formats.write_torch(trace(other).program, record, path)

    monkeypatch.setitem(formats.WRITERS, "torch", write_other)
    with pytest.raises(UserError, match=r"differs by .* nothing was written"):
        export(model, tmp_path / "net.pt2", samples=images)
    assert list(tmp_path.iterdir()) == []


def test_what_torch_cannot_write_is_said(model, monkeypatch):
    from focalnet.exporting import formats

    def refuse(*args, **options):
        raise RuntimeError("no function\nfor this")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    record = read_record(
        '{"version": 1, "spec": {"head": "atss"}, "outputs": [], "shape": [], "free": [], "sizes": true, '
        '"library": "1"}', "x",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"cannot write ATSS as ONNX \(no function\); a \.pt2 file"):
        formats.write_onnx(None, record, None)


def test_other_numbers_are_noticed(model):
    other = create_model("minifocal_32", num_classes=3, **SMALL).eval()
    example = torch.randn(2, 3, 32, 32)
    assert _difference(model, model, example) == 0
    assert _difference(model, other, example) > 0.1
    assert _difference(model, lambda inputs: torch.zeros(2, 4), example) == math.inf
    assert not _difference(model, lambda inputs: torch.full((2, 3), math.nan), example) <= 1


def test_other_answers_are_noticed():
    one = {"label": "ant", "score": 0.5, "top": [{"label": "ant", "score": 0.5}]}
    assert _alike(one, {**one, "score": 0.5002})
    assert not _alike(one, {**one, "score": 0.51})
    assert not _alike(one, {**one, "label": "bee"})
    assert not _alike(one, {**one, "top": []})


def test_a_pixel_more_is_no_other_answer():
    masks = torch.zeros(3, 20, 20, dtype=torch.bool)
    masks[:, 2:18, 2:18] = True
    masks[1, 2, 2] = masks[2, 2:10] = False
    rows = [{"label": "ant", "score": 0.5, "box": [2.0, 2.0, 18.0, 18.0], "mask": rle} for rle in encode_masks(masks)]
    assert _alike(rows[0], {**rows[1], "box": [2.01, 2.0, 18.0, 18.0]})
    assert not _alike(rows[0], rows[2])
    assert not _alike(rows[0], {**rows[0], "box": [2.1, 2.0, 18.0, 18.0]})

    labels = np.zeros((40, 40), np.uint8)
    other = labels.copy()
    other[0, 0] = 1
    maps = [SegmentPrediction(values, ("ant", "bee")) for values in (labels, other, 1 - labels)]
    assert _same(maps[0], maps[1])
    assert not _same(maps[0], maps[2])


@pytest.mark.slow
def test_a_model_in_training_is_in_training_afterwards(model, tmp_path):
    model.train()
    export(model, tmp_path / "net.pt2")
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("net.onnx", b"no network", "cannot be opened"),
        ("net.onnx", b"", "cannot be opened"),
        ("net.pt2", b"PK\x03\x04", "cannot be opened"),
        ("net.xml", b"<net>", "cannot be opened"),
        ("gone.onnx", None, "is no file"),
    ],
)
def test_what_is_no_exported_file(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        open_exported(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "was not exported by focalnet"),
        ("{", "the record in x"),
        ('{"version": 1}', "the record in x"),
        (
            '{"version": 99, "spec": {}, "outputs": [], "shape": [], "free": [], "sizes": false, "library": "9"}',
            "a newer version",
        ),
    ],
)
def test_records_are_checked(text, says):
    with pytest.raises(UserError, match=says):
        read_record(text, "x")


def test_wrong_shapes_and_names_are_said(file_of, model, tmp_path):
    network = open_exported(file_of("onnx").path)
    with pytest.raises(UserError, match=r"inputs of shape \(any, 3, any, any\), got \(1, 1, 32, 32\)"):
        network(torch.zeros(1, 1, 32, 32))
    with pytest.raises(UserError, match="no format to export to"):
        export(model, tmp_path / "net.tflite")
    with pytest.raises(UserError, match=r"end in \.onnx"):
        export(model, tmp_path / "net.pt2", format="onnx")
    assert KEY == "focalnet"


@pytest.mark.parametrize("size", [-1, 0, (32, 5000)])
def test_a_size_that_is_none_is_refused(model, tmp_path, size):
    with pytest.raises(UserError, match=r"the size is .*; give a side in pixels"):
        export(model, tmp_path / "net.pt2", size=size)
    assert list(tmp_path.iterdir()) == []


def around(model, runner, **changes):
    """`model` as if in a file that `runner` computes."""
    record = ExportRecord(
        **{
            "version": 1, "spec": json.loads(model.spec.to_json()), "outputs": ("map_0",), "shape": (1, 3, 32, 32),
            "free": (), "sizes": False, "library": "1", **changes,
        }
    )  # fmt: skip
    return made_around(record, runner, Path("net.pte"))


def test_a_file_of_one_image_takes_batches_one_by_one(model):
    seen = []

    def run(arrays):
        seen.append(arrays[0].shape)
        return [model(torch.from_numpy(arrays[0])).detach().numpy()]

    network, images = around(model, run), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(network(images), model(images))
    assert seen == [(1, 3, 32, 32)] * 3
    with pytest.raises(UserError, match=r"inputs of shape \(1, 3, 32, 32\), got \(1, 3, 64, 32\)"):
        network(torch.randn(1, 3, 64, 32))
    with pytest.raises(UserError, match=r"shape \(3, 3, 32, 32\), got \(2, 3, 32, 32\)"):
        around(model, run, shape=(3, 3, 32, 32))(images[:2])


def test_smaller_images_are_padded_where_a_file_takes_their_sizes(model):
    def run(arrays):
        images, sizes = arrays
        assert images.shape == (1, 3, 32, 32)
        assert images[..., 20:, :].any() == images[..., 24:].any() == False  # noqa: E712
        assert sizes.tolist() == [[20, 24]]
        return [images[:, :, 0, 0]]

    images = torch.rand(2, 3, 20, 24) + 1
    assert torch.equal(around(model, run, sizes=True)(images), images[:, :, 0, 0])


def test_what_a_runtime_cannot_compute_is_said_in_one_sentence(model, monkeypatch):
    def fail(arrays):
        raise RuntimeError("no such operator\nat all")

    network = around(model, fail)
    with pytest.raises(UserError, match=r"net\.pte cannot be run \(no such operator\)"):
        network(torch.zeros(1, 3, 32, 32))
    monkeypatch.setattr(checking, "open_exported", lambda path: network)
    says = r"OpenVINO cannot run classifier \(no such operator\): nothing was written; a \.pt2 file holds it"
    with pytest.raises(UserError, match=says):
        checking.check(model, Path("net.xml"), network.exported, [], 1e-4)
    with pytest.raises(UserError, match=r"torch cannot run classifier \(no such operator\): nothing was written\."):
        checking.check(model, Path("net.pt2"), network.exported, [], 1e-4)


def test_parts_of_a_file_cannot_be_looked_into(model):
    network = around(model, lambda arrays: [model(torch.from_numpy(arrays[0])).detach().numpy()])
    with pytest.raises(UserError, match=r"net\.pte computes the network as a whole"):
        network.patch_embed(torch.zeros(1, 3, 32, 32))


def test_the_line_that_says_what_went_wrong_is_told():
    openvino = "Exception from src/inference/core.cpp:84:\nCheck 'x' failed at src/memory.cpp:446:\nundefined memory"
    assert reason(RuntimeError(openvino)) == "undefined memory"
    assert reason(RuntimeError("no such file\nat line 3")) == "no such file"
