import argparse
import logging
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.convert import convert_file
from focalnet.variants import FocalNetConfig
from focalnet.weights import torch_files
from focalnet.weights.files import read_checkpoint, read_state_dict, replacing, write_state_dict

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([float("nan"), 1.0])}


def equal(one: dict, other: dict) -> bool:
    return set(one) == set(other) and all(torch.equal(one[k].nan_to_num(7), other[k].nan_to_num(7)) for k in one)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_written_and_read_again(tmp_path, suffix):
    path = tmp_path / "deep" / f"weights{suffix}"
    write_state_dict(path, WEIGHTS)
    assert equal(read_state_dict(path), WEIGHTS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_ema", "ema_model"])
@pytest.mark.parametrize("prefix", ["", "module.", "vision.", "module._orig_mod."])
def test_wrappers_and_prefixes(tmp_path, wrapper, prefix):
    inner = OrderedDict((prefix + key, value) for key, value in WEIGHTS.items())
    torch.save({"epoch": 3, wrapper: {"state_dict": inner}, "optimizer": {"state": {}}}, tmp_path / "w.pth")
    assert equal(read_state_dict(tmp_path / "w.pth"), WEIGHTS)


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "w.pth")
    assert set(read_state_dict(tmp_path / "w.pth")) == {"module.a", "b"}


def test_averaged_weights_are_preferred_and_said_so(tmp_path, caplog):
    other = {key: torch.zeros_like(value) for key, value in WEIGHTS.items()}
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(3, 2))
    torch.save({"model": other, "model_ema": averaged.state_dict()}, tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, logger="focalnet"):
        read = read_state_dict(tmp_path / "w.pth")
    assert set(read) == {"weight", "bias"}
    assert "took 'model_ema', left 'model'" in caplog.text


def official_training_checkpoint(path: Path, **save_options) -> None:
    """A checkpoint like the official `utils.save_checkpoint` writes, with a class of a module that is not installed."""

    class CfgNode(dict):
        def __init__(self, content):
            super().__init__(content)
            self.__dict__["__immutable__"] = True
            self.__dict__["__deprecated_keys__"] = set()

    module = types.ModuleType("yacs.config")
    CfgNode.__module__, CfgNode.__qualname__, module.CfgNode = "yacs.config", "CfgNode", CfgNode  # type: ignore[attr-defined]
    sys.modules |= {"yacs": types.ModuleType("yacs"), "yacs.config": module}
    try:
        config = CfgNode({"MODEL": CfgNode({"NAME": "focalnet", "LEVELS": [2, 2]}), "LR": 1e-4, "SIZE": (224, 224)})
        content = {"model": WEIGHTS, "optimizer": {}, "max_accuracy": np.float64(82.1), "epoch": 299, "config": config}
        torch.save(content | {"args": argparse.Namespace(lr=0.1), "out": np.int64(3)}, path, **save_options)
    finally:
        del sys.modules["yacs"], sys.modules["yacs.config"]


def test_training_checkpoint_with_a_yacs_config(tmp_path):
    official_training_checkpoint(tmp_path / "w.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pth", weights_only=True)
    assert equal(read_state_dict(tmp_path / "w.pth"), WEIGHTS)
    assert "yacs" not in sys.modules


def test_the_format_before_torch_1_6(tmp_path):
    torch.save(
        {"model": WEIGHTS, "args": argparse.Namespace(x=1)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False
    )
    assert equal(read_state_dict(tmp_path / "w.pth"), WEIGHTS)


class Evil:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec], ids=lambda function: function.__name__)
@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_of_a_file_ever_runs(tmp_path, function, legacy):
    mark = tmp_path / "mark"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    content = {"model": WEIGHTS, "config": Evil(function, code)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    if legacy or function is os.system:
        with pytest.raises(UserError, match=r"w\.pth"):
            read_state_dict(tmp_path / "w.pth")
    else:
        assert equal(read_state_dict(tmp_path / "w.pth"), WEIGHTS)
    assert not mark.exists()


@pytest.mark.parametrize("function", [os.system, eval, exec], ids=lambda function: function.__name__)
def test_no_code_of_a_pickle_ever_runs(tmp_path, function):
    mark = tmp_path / "mark"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    arrays = {name: tensor.numpy() for name, tensor in WEIGHTS.items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays, "config": Evil(function, code)}))
    assert equal(read_state_dict(tmp_path / "w.pkl"), WEIGHTS)
    assert not mark.exists()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_arrays_of_numpy_become_tensors(tmp_path, dtype):
    """detectron2 publishes pickles of arrays; some save them with torch."""
    arrays = {"a.weight": np.arange(6, dtype=dtype).reshape(2, 3), "a.bias": np.asfortranarray(np.ones((2, 3), dtype))}
    content = {"model": arrays, "__author__": "someone", "iteration": np.float64(3), "matching_heuristics": True}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content))
    torch.save(content, tmp_path / "w.pth")
    for name in ("w.pkl", "w.pth"):
        read = read_state_dict(tmp_path / name)
        assert {key: tensor.numpy().dtype for key, tensor in read.items()} == dict.fromkeys(arrays, dtype)
        assert all((read[key].numpy() == array).all() for key, array in arrays.items())


def test_a_pickle_changes_nothing_of_ours(tmp_path):
    """BUILD sets attributes of whatever the pickle was given, be it a class."""
    code = b"\x80\x02cfoo\nbar\nN}X\x07\x00\x00\x00__new__c_codecs\nencode\ns\x86b0}X\x05\x00\x00\x00model}s."
    (tmp_path / "w.pkl").write_bytes(code)
    with pytest.raises(UserError):
        read_state_dict(tmp_path / "w.pkl")
    arrays = {name: tensor.numpy() for name, tensor in WEIGHTS.items()}
    (tmp_path / "good.pkl").write_bytes(pickle.dumps({"model": arrays, "config": argparse.Namespace(lr=1)}))
    assert equal(read_state_dict(tmp_path / "good.pkl"), WEIGHTS)


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_wrappers_without_end(tmp_path, suffix):
    ring: dict = {}
    ring["model"] = ring
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(pickle.dumps(ring)) if suffix == "pkl" else torch.save(ring, path)
    with pytest.raises(UserError, match="holds no weights"):
        read_state_dict(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_every_protocol(tmp_path, protocol):
    arrays = {name: tensor.numpy() for name, tensor in WEIGHTS.items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=protocol))
    assert equal(read_state_dict(tmp_path / "w.pkl"), WEIGHTS)


def test_a_pickle_of_something_else_is_a_sentence(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"a": np.array(["text"])}}))
    with pytest.raises(UserError, match="holds no weights"):
        read_state_dict(tmp_path / "w.pkl")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"a": np.array([1], np.longdouble)}}))
    with pytest.raises(UserError, match="holds no weights"):
        read_state_dict(tmp_path / "w.pkl")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": WEIGHTS}))  # torch.save is for tensors
    with pytest.raises(UserError, match="no checkpoint of tensors, or a damaged one; save it again as a state dict"):
        read_state_dict(tmp_path / "w.pkl")
    (tmp_path / "w.pkl").write_bytes(b"<html>404</html>")
    with pytest.raises(UserError, match=r"w\.pkl is"):
        read_state_dict(tmp_path / "w.pkl")


@pytest.mark.parametrize(
    ("meta", "classes"),
    [
        ({"CLASSES": ("cat", "dog"), "mmseg_version": "0.11.0"}, ("cat", "dog")),
        ({"dataset_meta": {"classes": ["cat", "dog"], "palette": [[1, 2, 3]]}}, ("cat", "dog")),
        ({"dataset_meta": {}, "CLASSES": ["cat", "dog"]}, ("cat", "dog")),
        ({"CLASSES": [{"id": 1}, None]}, None),
        ({"epoch": 3}, None),
        ({"CLASSES": None}, None),
        (None, None),
    ],
)
def test_names_of_classes_that_openmmlab_writes(tmp_path, meta, classes):
    torch.save({"meta": meta, "state_dict": WEIGHTS}, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").classes == classes


def broken(tmp_path: Path, case: str) -> Path:
    path = tmp_path / ("w.safetensors" if "safetensors" in case else "w.pth")
    match case:
        case "missing":
            pass
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "text" | "text safetensors":
            path.write_text("<html>404</html>" * 100)
        case "cut off" | "cut off safetensors":
            write_state_dict(path, WEIGHTS | {"c": torch.zeros(5000)})
            path.write_bytes(path.read_bytes()[:-3000])
        case "bits flipped":
            write_state_dict(path, WEIGHTS)
            content = bytearray(path.read_bytes())
            content[40:400] = os.urandom(360)
            path.write_bytes(content)
        case "a number":
            torch.save(3.0, path)
        case "a list":
            torch.save([torch.zeros(1)], path)
        case "no weights":
            torch.save({"epoch": 1, "optimizer": {"state": {}}}, path)
        case "nothing":
            torch.save({}, path)
        case "whole module":
            torch.save(torch.nn.Linear(2, 2), path)
    return path


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "there is no weight file"),
        ("folder", "is a folder"),
        ("empty", "damaged|no checkpoint"),
        ("text", "no checkpoint of tensors|damaged"),
        ("text safetensors", "damaged or cut off"),
        ("cut off", "damaged or cut off"),
        ("cut off safetensors", "damaged or cut off"),
        ("bits flipped", "damaged|no checkpoint"),
        ("a number", "holds a float, no state dict"),
        ("a list", "holds a list, no state dict"),
        ("no weights", "holds no weights: found epoch, optimizer"),
        ("nothing", "holds no weights: found nothing"),
        ("whole module", "no checkpoint of tensors|damaged|holds no weights"),
    ],
)
def test_what_is_no_weight_file_gets_one_sentence(tmp_path, case, message):
    path = broken(tmp_path, case)
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_permission(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    torch.save(WEIGHTS, tmp_path / "w.pth")
    monkeypatch.setattr(torch_files, "load", refuse)
    with pytest.raises(UserError, match=r"w\.pth cannot be read: Permission denied"):
        read_state_dict(tmp_path / "w.pth")


def test_unknown_suffix_to_write(tmp_path):
    with pytest.raises(UserError, match=r"ends with '\.h5'; give a name ending with \.safetensors"):
        write_state_dict(tmp_path / "w.h5", WEIGHTS)


def test_a_write_that_fails_leaves_the_older_file(tmp_path):
    path = tmp_path / "w.pth"
    write_state_dict(path, WEIGHTS)

    def fill_the_disk():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"could not be written .*No space left"):
        fill_the_disk()
    assert equal(read_state_dict(path), WEIGHTS)
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"w{suffix}"
    real = Path.with_name
    monkeypatch.setattr(
        Path, "with_name", lambda self, name: Path("/dev/full") if name.endswith(".new") else real(self, name)
    )
    monkeypatch.setattr(Path, "unlink", lambda self: None)
    with pytest.raises(UserError, match=f"w{suffix} could not be written"):
        write_state_dict(path, WEIGHTS | {"c": torch.zeros(1 << 20)})
    assert not path.exists()


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=r"w\.pth could not be written .(Not a directory|File exists)"):
        write_state_dict(tmp_path / "taken" / "w.pth", WEIGHTS)


def test_strided_tensors_are_written_whole(tmp_path):
    strided = {"a": torch.arange(12.0).reshape(3, 4).t(), "b": torch.arange(10.0)[::2]}
    for suffix in (".pth", ".safetensors"):
        write_state_dict(tmp_path / f"w{suffix}", strided)
        assert equal(read_state_dict(tmp_path / f"w{suffix}"), strided)


# convert


SMALL = FocalNetConfig(embed_dim=8, depths=(1, 1), focal_levels=(2,), use_postln=True, layerscale_value=1e-4)


@pytest.fixture
def official() -> dict[str, torch.Tensor]:
    model = FocalNetClassifier(SMALL, num_classes=5)
    return {key: torch.randn_like(value) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_convert_there_and_back_is_byte_identical(tmp_path, official, layout, suffix):
    start, middle, end = tmp_path / "start.pth", tmp_path / f"middle{suffix}", tmp_path / "end.pth"
    write_state_dict(start, official, wrapper="model")
    convert_file(start, middle, to=layout, use_postln=True)
    assert convert_file(middle, end, to="official") == end
    read = torch.load(end, weights_only=True)["model"]  # what the official loader asks for
    assert set(read) == set(official)
    assert all(read[key].numpy().tobytes() == official[key].numpy().tobytes() for key in official)


def test_convert_carries_metadata(tmp_path, official):
    save_file(official, tmp_path / "a.safetensors", metadata={"trained_by": "me", "format": "pt"})
    convert_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="timm", use_postln=True)
    convert_file(tmp_path / "b.safetensors", tmp_path / "c.pth", to="official")
    convert_file(tmp_path / "c.pth", tmp_path / "d.safetensors", to="transformers")
    for name in ("b.safetensors", "c.pth", "d.safetensors"):
        assert read_checkpoint(tmp_path / name).metadata["trained_by"] == "me"
    assert "layers.0.blocks.0.norm1_post.weight" in load_file(tmp_path / "b.safetensors")


def test_convert_refuses_the_same_file_and_unknown_suffixes(tmp_path, official):
    path = tmp_path / "a.safetensors"
    save_file(official, path)
    (tmp_path / "link.safetensors").symlink_to(path)
    for target in (path, tmp_path / "x" / ".." / "a.safetensors", tmp_path / "link.safetensors"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="is the file to read"):
            convert_file(path, target, to="transformers")
    with pytest.raises(UserError, match="ends with 'no suffix'"):
        convert_file(path, tmp_path / "out", to="transformers")
    with pytest.raises(UserError, match="did you mean"):
        convert_file(path, tmp_path / "out.pth", to="transformer")  # type: ignore[arg-type]
    assert equal(read_state_dict(path), official)
