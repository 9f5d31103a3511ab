"""Data sets of the `datasets` package, saved or on the hub."""

import json
import logging

import pytest
from torch.utils.data import DataLoader

from class_files import fill, open_classes, open_everything, paths, png, refuse
from focalnet.inputs.image import BadImageError


@pytest.fixture(scope="module")
def hub():
    import datasets

    datasets.disable_progress_bars()
    return datasets


def table(hub, count: int, label, **more):
    """Rows of an image and a label; `label` is a feature."""
    features = hub.Features({"image": hub.Image(), "label": label, **{name: kind for name, (kind, _) in more.items()}})
    names = [0, 1] if isinstance(label, hub.ClassLabel) else {"string": ["even", "odd"], "int64": [3, 12]}[label.dtype]
    return hub.Dataset.from_dict(
        {
            "image": [{"bytes": png(row), "path": None} for row in range(count)],
            "label": [names[row % 2] for row in range(count)],
            **{name: [value] * count for name, (_, value) in more.items()},
        },
        features=features,
    )


def test_a_saved_data_set(tmp_path, hub):
    names = hub.ClassLabel(names=["odd", "even"])
    both = {"train": table(hub, 6, names), "test": table(hub, 2, names)}
    hub.DatasetDict(both).save_to_disk(str(tmp_path / "both"))
    data = open_classes(tmp_path / "both")
    assert data.classes == ("odd", "even"), "the order of the ClassLabel, not of the alphabet"
    assert (data.train.labels, data.val.labels) == ([0, 1, 0, 1, 0, 1], [0, 1])
    sample = data.train[4]
    assert (sample.path, sample.label) == (f"{tmp_path}/both/train[4]", 0)
    assert sample.signal.getpixel((0, 0)) == (4, 4, 4)
    assert [sample.path for sample in DataLoader(data.train, None, num_workers=1)] == paths(data.train)

    both["train"].save_to_disk(str(tmp_path / "one"))
    data = open_classes(tmp_path / "one", val_fraction=0.3)
    assert (len(data.train), len(data.val)) == (4, 2)


@pytest.mark.parametrize(("kind", "classes"), [("string", ("even", "odd")), ("int64", ("3", "12"))])
def test_labels_without_names(tmp_path, hub, kind, classes):
    table(hub, 4, hub.Value(kind)).save_to_disk(str(tmp_path / "x"))
    data = open_classes(tmp_path / "x", val_fraction=0.5)
    assert data.classes == classes
    assert sorted(data.train.labels) == [0, 1]
    for sample in [*data.train, *data.val]:
        row = sample.signal.getpixel((0, 0))[0]
        assert data.classes[sample.label] == {"string": ["even", "odd"], "int64": ["3", "12"]}[kind][row % 2]


def test_several_label_columns(tmp_path, hub, caplog):
    more = {"fine": (hub.ClassLabel(names=["x", "y"]), 1), "coarse": (hub.ClassLabel(names=["c"]), 0)}
    whole = table(hub, 4, hub.Value("string"), **more)
    whole.save_to_disk(str(tmp_path / "x"))
    with caplog.at_level(logging.INFO):
        assert open_classes(tmp_path / "x").classes == ("even", "odd")
    assert "the label is the column label; there is also fine, coarse" in caplog.text
    whole.remove_columns("label").save_to_disk(str(tmp_path / "y"))
    data = open_classes(tmp_path / "y")
    assert data.classes == ("x", "y")
    assert set(data.train.labels) == {1}


def test_a_table_without_labels_or_pictures(tmp_path, hub):
    whole = table(hub, 4, hub.ClassLabel(names=["a", "b"]))
    whole.remove_columns("label").save_to_disk(str(tmp_path / "pictures"))
    refuse(tmp_path / "pictures", r"needs a column of type ClassLabel, or one called label; it has image \(Image\)")
    whole.remove_columns("image").save_to_disk(str(tmp_path / "labels"))
    refuse(tmp_path / "labels", r"needs one column of type Image, .* it has label \(ClassLabel\)")
    hub.DatasetDict({"a": whole, "b": whole}).save_to_disk(str(tmp_path / "splits"))
    refuse(tmp_path / "splits", "has the splits a, b but no train")


def test_a_split_without_labels(tmp_path, hub, caplog):
    names = hub.ClassLabel(names=["a", "b"])
    whole = table(hub, 4, names)
    hidden = whole.map(lambda row: {"label": -1})
    hub.DatasetDict({"train": whole, "test": hidden}).save_to_disk(str(tmp_path / "x"))
    assert len(open_classes(tmp_path / "x").val) == 2
    assert "the split test has no labels" in caplog.text
    hidden.save_to_disk(str(tmp_path / "y"))
    refuse(tmp_path / "y", "has rows without a label")


def test_bad_pictures_in_a_data_set(tmp_path, hub):
    rows = {"image": [{"bytes": b"rubbish", "path": None}, None, {"bytes": png(2), "path": None}], "label": [0, 1, 0]}
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=["a", "b"])})
    hub.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "x"))
    with pytest.raises(BadImageError, match=r"x\[0\] cannot be read"):
        open_everything(tmp_path / "x", ("a", "b"))[0]
    data = open_everything(tmp_path / "x", ("a", "b"), on_bad_image="skip")
    assert data[0].skipped == (f"{tmp_path}/x[0]", f"{tmp_path}/x[1]")


def test_parquet_and_metadata(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "p" / "data").mkdir(parents=True)
    table(hub, 8, hub.ClassLabel(names=["a", "b"])).to_parquet(str(tmp_path / "p/data/train-00000-of-00001.parquet"))
    data = open_classes(tmp_path / "p")
    assert (data.classes, len(data.train), len(data.val)) == (("a", "b"), 6, 2)
    folder = tmp_path / "m"
    folder.mkdir()
    lines = []
    for index in range(4):
        (folder / f"{index}.png").write_bytes(png(index))
        lines.append(json.dumps({"file_name": f"{index}.png", "label": "ab"[index % 2]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    data = open_classes(folder, val_fraction=0.5)
    assert data.classes == ("a", "b")
    rows = {sample.signal.getpixel((0, 0))[0]: sample.label for sample in [*data.train, *data.val]}
    assert rows == {0: 0, 1: 1, 2: 0, 3: 1}


def test_splits_of_any_spelling(tmp_path, hub, caplog):
    names = hub.ClassLabel(names=["odd", "even"])
    matched = {"training": 6, "validation_matched": 4, "validation_mismatched": 3, "test_matched": 2}
    hub.DatasetDict({name: table(hub, count, names) for name, count in matched.items()}).save_to_disk(
        str(tmp_path / "m")
    )
    data = open_classes(tmp_path / "m")
    assert (len(data.train), len(data.val)) == (6, 4)
    assert f"{tmp_path}/m: left out the splits validation_mismatched" in caplog.text
    assert len(open_everything(tmp_path / "m", ("odd", "even"), split="test")) == 2
    hub.DatasetDict({"dev": table(hub, 4, names), "test": table(hub, 2, names)}).save_to_disk(str(tmp_path / "d"))
    refuse(tmp_path / "d", "has the splits dev, test but no train")
    assert len(open_everything(tmp_path / "d", ("odd", "even"))) == 4


def test_a_csv_of_notes_does_not_make_it_a_data_set(tmp_path):
    fill(tmp_path, a=2, b=2)
    (tmp_path / "metadata.csv").write_text("camera,date\nx,y\n")
    assert open_classes(tmp_path).classes == ("a", "b")


def test_a_broken_saved_data_set(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    refuse(tmp_path, "cannot be read as a data set")


@pytest.mark.parametrize("name", ["hf:cifar10", "someone/something", "hf:someone/something:plain"])
def test_hub_names(hub, monkeypatch, name):
    asked = []

    def load(repository, configuration):
        asked.append((repository, configuration))
        return hub.DatasetDict({"train": table(hub, 4, hub.ClassLabel(names=["a", "b"]))})

    monkeypatch.setattr(hub, "load_dataset", load)
    data = open_classes(name)
    repository, _, configuration = name.removeprefix("hf:").partition(":")
    assert asked == [(repository, configuration or None)]
    assert len(data.train) == 2
    assert data.train[0].path.startswith(name.removeprefix("hf:"))


def test_no_network(hub, monkeypatch, tmp_path):
    def load(*_):
        raise ConnectionError("Couldn't reach 'someone/something' on the Hub\nand more")

    monkeypatch.setattr(hub, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    message = (
        f"The data set 'someone/something' cannot be loaded from the hub .*reach.*, and there is no folder {tmp_path}"
    )
    refuse("someone/something", message)
    refuse("hf:someone/something", message)
