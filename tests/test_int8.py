"""int8: its cost is measured, told and bounded, methods that fail are refused, other processors are noticed."""

import dataclasses
import json
import math
import re

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import focalnet
from command_line import run
from focalnet import machine
from focalnet.errors import UserError
from focalnet.exporting import export, find_samples, int8
from focalnet.exporting.noise import noisiest
from focalnet.exporting.samples import _spread
from focalnet.models import exported
from focalnet.models.create import create_model
from focalnet.models.exported import ExportRecord, Quantization, elsewhere, open_exported, read_record
from focalnet.models.runtimes import KEY
from focalnet.predict import Predictor
from kept_runs import borrow

COST = Quantization(
    method="matmul", calibrated=128, measured=450, score="top1", before={"top1": 0.98}, after={"top1": 0.97}
)
RECORD = ExportRecord(
    version=1, spec={}, outputs=("map_0",), shape=(2, 3, 32, 32), free=(0,), sizes=False, library="1", cpu=("AVX2",),
    int8=COST,
)  # fmt: skip


def test_records_keep_the_cost_and_the_processor():
    assert read_record(RECORD.to_json(), "x") == RECORD
    old = {name: value for name, value in json.loads(RECORD.to_json()).items() if name not in ("cpu", "int8")}
    assert read_record(json.dumps(old), "x").int8 is None
    with pytest.raises(UserError, match="method"):
        read_record(RECORD.to_json().replace('"matmul"', "3"), "x")


def test_points_are_hundredths_of_a_share_or_of_the_value():
    assert COST.loss == pytest.approx(1)
    assert "top1 0.9800 in float32 and 0.9700 in int8 on 450 held-out samples (-1.00 points" in str(COST)
    level = dataclasses.replace(COST, before={"top1": -20.0}, after={"top1": -21.0})
    assert level.loss == pytest.approx(5)
    better = dataclasses.replace(COST, before={"top1": 8.0}, after={"top1": 8.4})
    assert better.loss == pytest.approx(-5)


def test_another_processor_is_noticed(monkeypatch):
    monkeypatch.setattr(exported, "abilities", lambda: ("AVX2",))
    assert elsewhere(RECORD) == ""
    monkeypatch.setattr(exported, "abilities", lambda: ("AVX2", "AVX-512", "AVX-512 VNNI"))
    assert "measured on a processor with AVX2, and this one has AVX2, AVX-512, AVX-512 VNNI" in elsewhere(RECORD)
    assert elsewhere(dataclasses.replace(RECORD, int8=None)) == ""
    assert elsewhere(dataclasses.replace(RECORD, cpu=())) == ""
    monkeypatch.setattr(exported, "abilities", tuple)
    assert elsewhere(RECORD) == ""


def test_abilities_are_those_that_torch_finds(monkeypatch):
    found = {"avx2": True, "avx512_vnni": False, "amx_bf16": True, "l1d_cache_size": 32768}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert machine.abilities.__wrapped__() == ("AVX2", "AMX bf16")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert machine.abilities.__wrapped__() == ()


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """A file of two layers and inputs for it; the second has large weights for a small input, beside which 7 bits know
    no others."""
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(16, 16)).astype(np.float32) for _ in range(2))
    one[:, 0] *= 1e-3
    two[0] *= 300
    biases = {f"network.{name}.bias": np.zeros(16, np.float32) for name in ("first", "second")}
    nodes = [
        helper.make_node("MatMul", ["inputs", "val_1"], ["a"], name="node_1"),
        helper.make_node("Add", ["a", "network.first.bias"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "val_2"], ["d"], name="node_2"),
        helper.make_node("Add", ["d", "network.second.bias"], ["out"]),
    ]
    shape = {"inputs": ("batch", 16), "out": ("batch", 16)}
    ports = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in shape.items()}
    weights = [numpy_helper.from_array(value, name) for name, value in ({"val_1": one, "val_2": two} | biases).items()]
    graph = helper.make_graph(nodes, "net", [ports["inputs"]], [ports["out"]], weights)
    path = tmp_path_factory.mktemp("products") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    fed = [[rng.normal(size=(4, 16)).astype(np.float32)] for _ in range(4)]
    return path, fed


def test_the_layer_that_loses_most_is_named(products, tmp_path):
    plain, fed = products
    int8.write_onnx(plain, tmp_path / "net.onnx", lambda: iter(fed), "matmul")
    types = [node.op_type for node in onnx.load(str(tmp_path / "net.onnx")).graph.node]
    assert types.count("DequantizeLinear") >= 4
    (worst, most), (other, less) = noisiest(plain, tmp_path / "net.onnx", "onnx", lambda: iter(fed), 4)
    assert (worst, other) == ("second", "first")
    assert 1 > most > 2 * less > 0


class Lone:
    """Samples without a task: what `quantize` makes of their metrics is looked at."""

    def __init__(self, fed):
        self.fed, self.count, self.held_out, self.task = fed, len(fed), range(50), Lone

    score = "top1"


@pytest.mark.parametrize(("after", "kept"), [(0.976, True), (0.974, False), (math.nan, False)])
def test_a_file_that_loses_more_than_the_tolerance_is_refused(products, tmp_path, monkeypatch, after, kept):
    plain, fed = products
    path = tmp_path / "net.onnx"
    path.write_bytes(plain.read_bytes())
    found = iter([{"top1": 0.98}, {"top1": after}])
    monkeypatch.setattr(int8, "metrics_of", lambda path, samples: next(found))
    monkeypatch.setattr(int8, "feeds_of", lambda path, record, samples: iter(samples.fed))
    record = dataclasses.replace(RECORD, int8=None)
    if not kept:
        with pytest.raises(UserError, match=r"nothing was written\. The layers that lose most: second \("):
            int8.quantize(path, "onnx", record, Lone(fed), "matmul", 0.5)
        return
    made = int8.quantize(path, "onnx", record, Lone(fed), "matmul", 0.5)
    assert made.int8.loss == pytest.approx(0.4)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    (written,) = [entry.value for entry in onnx.load(str(path)).metadata_props if entry.key == KEY]
    assert read_record(written, "x") == made


def test_what_has_no_int8_or_no_samples_is_said(tmp_path):
    model = create_model("minifocal_32", classes=["ant", "bee"], embed_dim=8, depths=(1, 1, 1), focal_levels=1)
    with pytest.raises(UserError, match=r"int8 is written as \.onnx or \.xml"):
        export(model, tmp_path / "net.pt2", int8="run")
    with pytest.raises(UserError, match="this model is none: give a folder"):
        export(model, tmp_path / "net.onnx", int8="run")
    with pytest.raises(UserError, match="measured on the folder, by its labels"):
        export(model, tmp_path / "net.onnx", int8=tmp_path)


def test_samples_of_a_folder_are_held_out_from_calibration(tmp_path):
    from PIL import Image

    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    model = create_model("minifocal_32", classes=["ant", "bee"], embed_dim=8, depths=(1, 1, 1), focal_levels=1)
    samples = find_samples(model, model.spec, tmp_path)
    assert (samples.count, len(samples.held_out)) == (4, 4)
    seen = [signal.getpixel((0, 0)) for signal in samples.signals()]
    assert not set(seen) & {samples.held_out[index].signal.getpixel((0, 0)) for index in range(4)}
    assert list(_spread(range(10), 4)) == [0, 3, 6, 9]


def test_exported_files_compute_in_bf16_where_the_processor_has_it(products, tmp_path, monkeypatch):
    for name in ("net.onnx", "net.pt2"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UserError, match="only those of OpenVINO"):
            Predictor(str(tmp_path / name), precision="bf16")
    (tmp_path / "net.xml").write_bytes(b"x")
    with pytest.raises(UserError, match="only those of OpenVINO"):
        Predictor(str(tmp_path / "net.xml"), precision="fp16")
    openvino = pytest.importorskip("openvino")
    hints, real = [], openvino.Core

    class Core:
        abilities = ("FP32",)

        def get_property(self, device, name):
            return self.abilities

        def read_model(self, path):
            return real().read_model(str(products[0]))

        def compile_model(self, model, device, how):
            hints.append(how["INFERENCE_PRECISION_HINT"])
            raise RuntimeError("enough")

    monkeypatch.setattr(openvino, "Core", Core)
    with pytest.raises(UserError, match="OpenVINO would compute in float32 without a word"):
        open_exported(tmp_path / "net.xml", "bf16")
    Core.abilities = ("FP32", "BF16")
    with pytest.raises(UserError, match="enough"):
        open_exported(tmp_path / "net.xml", "bf16")
    assert hints == ["bf16"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run of the demonstration, to its end."""
    return focalnet.train(out=tmp_path_factory.mktemp("digits") / "run", workers=0, check="off")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "score"), [("mask_rcnn", "box_ap"), ("upernet", "miou")])
def test_detectors_and_segmenters_are_judged_by_their_own_metric(name, score, tmp_path, monkeypatch, capsys):
    folder, out = borrow(name, tmp_path, monkeypatch), tmp_path / "out" / "net.onnx"
    code, told, err = run(capsys, "export", folder, out, "--int8", "run")
    assert code == 0, err
    cost = open_exported(out).exported.int8
    assert cost.score == score
    assert 0 < cost.before[score] < 1
    assert cost.loss <= 0.5
    for metric, before in cost.before.items():
        assert f"{metric}  {before:.4f} in float32, {cost.after[metric]:.4f} in int8" in told


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_detector_that_loses_too_much_is_not_written(tmp_path, monkeypatch, capsys):
    folder, out = borrow("mask_rcnn", tmp_path, monkeypatch), tmp_path / "out" / "net.onnx"
    found = iter([{"box_ap": 0.5}, {"box_ap": 0.494}])
    monkeypatch.setattr(int8, "metrics_of", lambda path, samples: next(found))
    code, _, err = run(capsys, "export", folder, out, "--int8", "run")
    assert code == 2
    assert "int8 costs too much: box_ap 0.5000 in float32 and 0.4940 in int8" in err
    assert "(-0.60 points" in err
    assert re.search(r"The layers that lose most: [a-z]\S+ \(\d+% noise\)", err)
    assert list(out.parent.iterdir()) == []


WRONG_WITHOUT_VNNI = [("onnx", "all_8bit"), ("xml", "all_8bit")]
"""Full QDQ of ONNX Runtime, and NNCF as it comes."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_trained_digits_keep_their_accuracy(digits, tmp_path, capsys):
    out = tmp_path / "net.onnx"
    code, told, err = run(capsys, "export", digits.path, out, "--int8", "run")
    assert code == 0, err
    network = open_exported(out)
    cost = network.exported.int8
    assert network.exported.cpu == machine.abilities()
    assert cost.before["top1"] >= 0.98
    assert cost.loss <= 0.5
    assert f"top1  {cost.before['top1']:.4f} in float32, {cost.after['top1']:.4f} in int8" in told
    assert out.stat().st_size < 0.6 * 4 * sum(len(p.flatten()) for p in create_model(weights=digits).parameters())
    assert focalnet.evaluate(str(out), data=None)["top1"] == pytest.approx(cost.after["top1"], abs=0.005)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("ending", "method"), WRONG_WITHOUT_VNNI)
def test_methods_that_fail_without_vnni_are_refused(digits, tmp_path, capsys, ending, method):
    if any("VNNI" in ability or "AMX" in ability for ability in machine.abilities()):
        pytest.skip("this processor adds products of int8 without saturating")
    code, _, err = run(
        capsys, "export", digits.path, tmp_path / f"net.{ending}", "--int8", "run", "--int8-method", method
    )
    assert code == 2
    assert "int8 costs too much" in err
    assert "The layers that lose most: " in err
    assert "none stands out" not in err
    assert list(tmp_path.iterdir()) == []
