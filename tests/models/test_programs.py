"""A .pt2 file is a program and nothing else: what would run where torch opens it is refused before."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

import focalnet
from focalnet.errors import UserError
from focalnet.explain import explain
from focalnet.models import programs
from focalnet.models.exported import open_exported

KEPT = Path(__file__).parents[1] / "fixtures" / "exported"
MODEL, WEIGHTS, CONSTANTS = (
    "models/model.json", "data/weights/model_weights_config.json", "data/constants/model_constants_config.json",
)  # fmt: skip
SLOW = pytest.mark.slow
LOGITS = [-2.23445, 0.50888]
CODE = "open('mark', 'w')"


class Evil:
    def __reduce__(self):
        return open, ("mark", "w")


def pickled():
    buffer = io.BytesIO()
    torch.save({"x": Evil()}, buffer)
    return buffer.getvalue()


def with_json(change):
    """A change of the text of a JSON file."""

    def changed(content):
        rows = json.loads(content)
        change(rows)
        return json.dumps(rows).encode()

    return changed


def a_pickled_weight(rows):
    next(iter(rows["config"].values())).update(use_pickle=True)


def a_pickled_constant(rows):
    rows["config"]["x"] = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}


def calling(operator):
    return lambda rows: rows["graph_module"]["graph"]["nodes"][0].update(target=operator)


def instead(old, new):
    return lambda content: content.decode().replace(old, new, 1).encode()


ATTACKS = {
    "weight": (
        {WEIGHTS: with_json(a_pickled_weight), "data/weights/weight_0": lambda _: pickled()},
        "a pickle among its weights",
    ),
    "constant": (
        {CONSTANTS: with_json(a_pickled_constant), "data/constants/opaque_obj_0": lambda _: pickled()},
        "opaque_obj_0",
    ),
    "inputs": ({"data/sample_inputs/model.pt": lambda _: pickled()}, "in place of the inputs"),
    "weights of old": ({"data/weights/model.pt": lambda _: pickled()}, "data/weights/model.pt"),
    "library": ({"data/aotinductor/model/x.so": lambda _: b"\x7fELF"}, "aotinductor"),
    "size": ({MODEL: instead("Symbol('s", f"{CODE}, Symbol('s")}, "as expr_str"),
    "call": ({MODEL: instead("Integer(", "eval(")}, "as expr_str"),
    "power": ({MODEL: instead('"expr_str": "', '"expr_str": "Pow(Integer(9), Integer(999999999)) + ')}, "as expr_str"),
    "operator": ({MODEL: with_json(calling("torch.hub.load"))}, "torch.hub.load"),
    "file": ({MODEL: with_json(calling("torch.ops.aten.from_file.default"))}, "from_file"),
    "name": ({MODEL: instead('"inputs"', json.dumps(f"x = {CODE}"))}, "x = open"),
}  # fmt: skip


def forged(path, parts):
    with zipfile.ZipFile(KEPT / "net.pt2") as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    for name, change in parts.items():
        files[name] = change(files.get(name))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"net/{name}", content)
    return path


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_would_run_is_refused(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    parts, words = ATTACKS[attack]
    with pytest.raises(UserError, match=r"has more in it than a program that focalnet writes") as error:
        open_exported(forged(tmp_path / "net.pt2", parts))
    assert words in str(error.value)
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_bounds_that_torch_added_up_are_sizes():
    assert programs._is_arithmetic("LessThan(Symbol('u8', integer=True), Integer(27670116110564327418))")
    assert not programs._is_arithmetic("Integer(2) ** Integer(99)")


def test_guards_of_a_file_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = {MODEL: with_json(lambda rows: rows.update(guards_code=[CODE]))}
    assert open_exported(forged(tmp_path / "net.pt2", parts))(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["net.onnx", pytest.param("net.xml", marks=SLOW), pytest.param("net.pt2", marks=SLOW)])
def test_kept_files_compute_what_they_did(name):
    network = open_exported(KEPT / name)
    assert network.spec.classes == ("lying", "standing")
    image = torch.linspace(-1, 1, 3 * 40 * 48).reshape(1, 3, 40, 48)
    assert network(image)[0].tolist() == pytest.approx(LOGITS, abs=1e-4)


def test_a_file_is_closed_to_what_looks_inside():
    network = open_exported(KEPT / "net.onnx")
    image = torch.zeros(3, 32, 32)
    for look in (lambda: focalnet.embed(network, [image]), lambda: explain(network, image)):
        with pytest.raises(UserError, match="an exported file is closed"):
            look()


def test_a_record_of_another_network_is_said(tmp_path):
    import onnx

    model = onnx.load(str(KEPT / "net.onnx"))
    (entry,) = [entry for entry in model.metadata_props if entry.key == "focalnet"]
    record = json.loads(entry.value)

    def opened(**other):
        entry.value = json.dumps({**record, **other})
        onnx.save(model, str(tmp_path / "net.onnx"))
        return open_exported(tmp_path / "net.onnx")

    with pytest.raises(UserError, match=r"gives 1 outputs, and its record 2"):
        opened(outputs=["logits", "x"])(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"cannot be run \("):
        opened(shape=[2, 1, 32, 32])(torch.zeros(1, 1, 32, 32))
    detector = focalnet.create_model("atss_minifocal_128", num_classes=2, channels=32, tower_depth=1)
    with pytest.raises(UserError, match=r"does not fit it: atss has the outputs boxes, scores, .*, the file map_0"):
        opened(spec=json.loads(detector.spec.to_json()))
