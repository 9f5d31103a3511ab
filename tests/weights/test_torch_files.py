"""Files of `torch.save` are read as torch reads them, but their word is not taken for what they hold."""

import pickle
import re
import zipfile

import numpy as np
import pytest
import torch

from focalnet.errors import UserError
from focalnet.weights import torch_files
from focalnet.weights.files import amiss, read_content, read_state_dict

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128]  # fmt: skip


def content() -> dict:
    values = {str(dtype): torch.arange(12).reshape(3, 4).to(dtype) for dtype in DTYPES}
    base = torch.arange(24.0)
    values |= {
        "view": base.reshape(4, 6)[1:3, ::2], "turned": base.reshape(4, 6).t(), "same": base,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(torch.ones(2)), "grown": torch.ones(2).expand(2),
    }  # fmt: skip
    return {"model": values, "epoch": 3, "more": [(1, None, True), {"a": "é"}, torch.Size([1, 2]), torch.float32]}


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_out_as_torch_reads_them(tmp_path, zipped):
    path = tmp_path / "w.pth"
    torch.save(content(), path, _use_new_zipfile_serialization=zipped)
    theirs, ours = torch.load(path)["model"], read_state_dict(path)
    assert list(theirs) == list(ours)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert ours[name].stride() == tensor.stride()
        assert torch.equal(ours[name], tensor)
    assert ours["view"].untyped_storage().data_ptr() == ours["same"].untyped_storage().data_ptr()
    whole = read_content(path)
    assert whole["epoch"] == 3
    assert whole["more"][:3] == [(1, None, True), {"a": "é"}, (1, 2)]


def rewritten(path, change=lambda data: data, packed=zipfile.ZIP_STORED, **records):
    """The archive at `path` with another pickle, or other records."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(parts)).split("/")[0]
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in parts.items():
            data = records.get(name.rpartition("/")[2], data)
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)
        for name, data in records.items():
            if not any(part.endswith(f"/{name}") for part in parts):
                archive.writestr(f"{root}/{name}", data)


FOUR = b"K\x04"


def as_long(number: int) -> bytes:
    return b"\x8a\x08" + number.to_bytes(8, "little", signed=True)


@pytest.mark.parametrize("number", [-1, 5, 200_000_000, 2**60, 2**62 - 1])
@pytest.mark.parametrize("which", ["storage", "size", "both"])
def test_a_file_is_not_believed_about_its_size(tmp_path, number, which):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(4.0)}, path)

    def change(data):
        first = data.index(FOUR) + len(FOUR)
        head, tail = data[:first], data[first:]
        if which != "size":
            head = head.replace(FOUR, as_long(number))
        if which != "storage":
            tail = tail.replace(FOUR, as_long(number), 1)
        return head + tail

    rewritten(path, change)
    with pytest.raises(UserError, match=r"w\.pth"):
        read_state_dict(path)


def test_strides_stay_inside(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(4.0)}, path)
    end = b"K\x01\x85"  # the stride
    rewritten(path, lambda data: data.replace(end, as_long(2**40) + b"\x85"))
    with pytest.raises(UserError, match=r"w\.pth"):
        read_state_dict(path)


def test_archives_are_as_torch_writes_them(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(10_000_000)}, path)
    rewritten(path, packed=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="packed again"):
        read_state_dict(path)
    torch.save({"a": torch.zeros(4)}, path)
    rewritten(path, byteorder=b"big")
    with pytest.raises(UserError, match="order of bytes"):
        read_state_dict(path)
    torch.save({"a": torch.zeros(4)}, path)
    rewritten(path, **{"constants.pkl": b""})
    with pytest.raises(UserError, match=r"torch\.jit"):
        read_state_dict(path)


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.eye(3).to_sparse(), "a sparse tensor"),
        (lambda: torch.eye(3).to_sparse_csr(), "a sparse tensor"),
        (quantized, "a quantized tensor"),
        (lambda: torch.zeros(3, device="meta"), "a tensor on the meta device"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a nested tensor"),
        (lambda: torch.ones(3).to(torch.float8_e4m3fn), "a number type that no network here has"),
        (lambda: torch.ones(3).to(torch.uint16), "a number type that no network here has"),
    ],
)
def test_tensors_that_no_weights_are(tmp_path, make, kind, zipped):
    path = tmp_path / "w.pth"
    torch.save({"model": {"a": torch.ones(1), "b.weight": make()}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=rf"w\.pth: b\.weight is .*{kind}"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (torch.tensor([1.0, float("nan")]), "NaN or infinite numbers: b"),
        (torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16), "NaN or infinite numbers: b"),
        (torch.tensor([1, 2]), r"no floating-point numbers of 16 to 64 bits: b \(int64\)"),
        (torch.tensor([True]), r"b \(bool\)"),
        (torch.tensor(1j), r"b \(complex64\)"),
        (torch.ones(2).to(torch.float8_e5m2), r"b \(float8_e5m2\)"),
    ],
)
def test_numbers_that_no_weights_are(tensor, what):
    words = amiss({"a": torch.ones(2), "b": tensor})
    assert words is not None
    assert re.search("1 of 2 tensors hold " + ".*" + what, words)


def test_numbers_of_weights():
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    weights = {str(dtype): torch.ones(2, dtype=dtype) for dtype in floats}
    assert amiss(weights | {"bn.num_batches_tracked": torch.tensor(3), "empty": torch.zeros(0)}) is None


def test_names_without_end(tmp_path):
    """Names of a million prefixes, or of nothing but how many were averaged, take no time."""
    path = tmp_path / "w.pth"
    torch.save({"n_averaged": torch.tensor(1)}, path)
    with pytest.raises(UserError, match="holds no weights"):
        read_state_dict(path)
    torch.save({"module." * 1_000_000 + "a": torch.ones(1)}, path)
    assert len(read_state_dict(path)) == 1


def test_one_storage_under_many_names(tmp_path):
    path = tmp_path / "w.pth"
    numbers = torch.zeros(100_000)
    torch.save({str(name): numbers.view(-1) for name in range(500)}, path)
    with pytest.raises(UserError, match="very many names"):
        read_state_dict(path)


def test_shared_containers_are_walked_once(tmp_path):
    path = tmp_path / "state.pt"
    layer: list = [torch.ones(1)]
    for _ in range(60):
        layer = [layer, layer]
    torch.save(layer, path)
    found = read_content(path)
    for _ in range(60):
        assert found[0] is found[1]
        found = found[0]


def test_arrays_inside(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": np.arange(4.0)}, path)
    assert read_state_dict(path)["a"].tolist() == [0, 1, 2, 3]


def test_nothing_is_imported(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(
        pickle.dumps(torch_files.MAGIC, 2) + pickle.dumps(1001, 2) + b"\x80\x02}.\x80\x02cantigravity\nx\n."
    )
    with pytest.raises(UserError, match=r"w\.pth"):
        read_state_dict(path)
