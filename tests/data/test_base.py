"""The one data set class: labels by name, bad images, pickles."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from class_files import fill, open_classes, open_everything
from focalnet.data import DenseSample, Sample, Samples
from focalnet.data.base import Split
from focalnet.inputs.image import BadImageError


class Painted:
    """Reads grey images whose one object has label `entry`; sample 2 is broken."""

    def name(self, entry: int) -> str:
        return f"sample {entry}"

    def read(self, entry: int) -> DenseSample:
        if entry == 2:
            raise BadImageError("sample 2 is broken.")
        semantic = torch.full((3, 5), entry, dtype=torch.uint8)
        semantic[0] = 255
        box, one = torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1)
        return DenseSample(
            Image.new("RGB", (5, 3)), str(entry), box, torch.tensor([entry]), None, one < 0, one, semantic, entry
        )


def painted(count: int = 4, used: frozenset | None = None) -> Split:
    things = (True, True, False, False)
    return Split(
        reader=Painted(), entries=range(count), classes=tuple("abcd"), things=things, sizes=[(3, 5)] * count, used=used
    )


def test_labels_follow_the_names():
    samples = Samples(painted(used=frozenset("ab")), ("b", "x", "a"), "stop")
    assert samples.classes == ("b", "x", "a")
    assert samples.things == (True, True, True)
    assert [samples[index].labels.item() for index in (0, 1)] == [2, 0]
    assert samples[0].semantic.unique().tolist() == [2, 255]
    assert samples[1].semantic.unique().tolist() == [0, 255]
    assert Samples(painted(), ("d", "c", "b", "a"), "stop").things == (False, False, True, True)
    assert Samples(painted(), None, "stop")[3].labels.item() == 3


def test_a_bad_picture_stops_or_is_replaced_and_named():
    with pytest.raises(BadImageError, match=r"sample 2 is broken. To go on without it: --on-bad-image skip."):
        Samples(painted(), None, "stop")[2]
    samples = Samples(painted(), None, "skip")
    assert (samples[2].image_id, samples[2].skipped) == (3, ("sample 2",))
    assert samples[1].skipped == ()
    assert samples[-1].image_id == 3
    with pytest.raises(IndexError):
        samples[4]
    broken = painted().take([2, 2])
    with pytest.raises(BadImageError, match="No image can be read, of 2"):
        Samples(broken, None, "skip")[0]


def test_splits_can_be_taken_from():
    split = painted().take([3, 0])
    assert list(split.entries) == [3, 0]
    assert split.sizes == [(3, 5)] * 2


def test_a_bad_picture_stops_with_its_path(tmp_path):
    fill(tmp_path, a=4, b=4)
    (tmp_path / "a" / "1.png").write_bytes(b"rubbish")
    data = open_everything(tmp_path, ("a", "b"))
    with pytest.raises(BadImageError, match=r"^.*a/1\.png cannot be read .*--on-bad-image skip\.$"):
        data[1]
    assert data[0].skipped == ()


def test_a_bad_picture_is_replaced_by_the_next(tmp_path):
    fill(tmp_path, a=4, b=4)
    bad = [str(tmp_path / name) for name in ("a/1.png", "a/2.png", "b/3.png")]
    for path in bad:
        Path(path).write_bytes(b"rubbish")
    data = open_everything(tmp_path, ("a", "b"), on_bad_image="skip")
    assert len(data) == 8
    assert data[1] == Sample(data[3].signal, 0, data[3].path, tuple(bad[:2]))
    assert (data[7].path, data[7].label, data[7].skipped) == (data[0].path, 0, (bad[2],))
    loader = DataLoader(data, batch_size=None, num_workers=2, shuffle=True)
    assert {path for sample in loader for path in sample.skipped} == set(bad)


def test_nothing_but_bad_pictures(tmp_path):
    fill(tmp_path, a=2, b=2)
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(BadImageError, match="No image can be read, of 2"):
        open_classes(tmp_path, on_bad_image="skip", val_fraction=0.5).train[0]
