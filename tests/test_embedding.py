"""Images as vectors: from Python, and by `focalnet embed` and `focalnet similar`."""

import numpy as np
import pytest
import torch
from PIL import Image

import focalnet
from command_line import run
from focalnet.embedding import Embedder
from focalnet.embedding.files import open_writer
from focalnet.errors import MissingExtraError, UserError
from focalnet.inputs.ahead import default_threads
from focalnet.inputs.streaming import LIKE


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "net"
    focalnet.save_pretrained(focalnet.create_model("minifocal_32", classes=["a", "b"]), folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six images; 5.png is 2.png again, in another size."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(5):
        low = rng.integers(0, 255, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(low).resize((40 + number, 36), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    Image.open(folder / "2.png").resize((84, 72), Image.Resampling.NEAREST).save(folder / "5.png")
    return folder


def test_the_vectors_are_the_pooled_features(model, folder):
    network = focalnet.create_model(weights=model)
    paths = sorted(folder.iterdir())
    found = focalnet.embed(network, paths, batch_size=4, device="cpu")
    assert found.names == [str(path) for path in paths]
    assert (found.vectors.shape, found.vectors.dtype) == ((6, network.num_features), np.float32)
    how = network.spec.preprocessing
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(how(how.read(paths[3]))[None]), pre_logits=True)[0]
    np.testing.assert_allclose(found.vectors[3], expected.numpy(), rtol=1e-5, atol=1e-5)
    array = np.asarray(Image.open(paths[3]))
    again = focalnet.embed(model, [array, torch.from_numpy(array.copy()).permute(2, 0, 1)])
    assert again.names == ["0", "1"]
    np.testing.assert_allclose(again.vectors, found.vectors[[3, 3]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["minifocal_32", pytest.param("upernet_minifocal_128", marks=pytest.mark.slow)])
def test_backbones_and_networks_with_heads_have_vectors_too(folder, name):
    make = focalnet.create_backbone if name == "minifocal_32" else focalnet.create_model
    network = make(name)
    width = getattr(network, "focalnet", network).num_features
    paths = [folder / "0.png", folder / "1.png", folder / "5.png"]  # seen in sizes of their own
    found = focalnet.embed(network, paths)
    assert found.vectors.shape == (3, width)
    alone = focalnet.embed(network, paths[1:2])
    np.testing.assert_allclose(found.vectors[1], alone.vectors[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_folder_becomes_a_file_and_is_searched(capsys, model, folder, tmp_path, suffix):
    out = tmp_path / "new" / f"x.{suffix}"
    (tmp_path / "broken.png").write_bytes(b"no image")
    arguments = ("embed", tmp_path / "broken.png", folder, "--model", model, "--out", out, "--batch-size", 4)
    code, told, err = run(capsys, *arguments)
    assert (code, told) == (2, f"{out}: images 6, numbers of each 128\n")
    assert "broken.png" in err
    assert "1 of 7 could not be read" in err
    assert run(capsys, *arguments, "--on-bad-image", "skip")[0] == 0
    found = focalnet.Embeddings.load(out)
    assert found.names == [str(folder / f"{number}.png") for number in range(6)]
    np.testing.assert_allclose(found.vectors, focalnet.embed(model, found.names).vectors, rtol=1e-5, atol=1e-5)
    assert [path.name for path in out.parent.iterdir()] == [out.name]

    code, told, _ = run(capsys, "similar", folder / "2.png", out, "--top", 2)
    assert code == 0
    assert told.split()[1] == str(folder / "5.png"), "the image itself is not told"
    assert len(told.splitlines()) == 2
    Image.open(folder / "2.png").save(tmp_path / "query.png")
    assert run(capsys, "similar", tmp_path / "query.png", out, "--top", 1)[1] == f"1.0000  {folder / '2.png'}\n"
    code, told, err = run(capsys, "similar", out, "--duplicates", "0.9999")
    assert [line.split()[1:] for line in told.splitlines()] == [[str(folder / "2.png"), str(folder / "5.png")]]
    assert err.endswith("or more: 1\n")
    (tmp_path / f"again.{suffix}").write_bytes(b"")
    found.save(tmp_path / f"again.{suffix}")
    assert focalnet.Embeddings.load(tmp_path / f"again.{suffix}").names == found.names


def test_images_are_read_as_they_are_needed(model, folder):
    asked = []

    def sources():
        for number in range(100):
            asked.append(number)
            yield str(number), folder / "0.png"

    stream = Embedder(model, device="cpu").stream(sources(), batch_size=4)
    next(stream)
    assert len(asked) == LIKE * 4 - 1 + 2 * default_threads()
    stream.close()


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    for suffix in ("npz", "parquet"):
        path = tmp_path / f"x.{suffix}"
        with pytest.raises(AttributeError), open_writer(path, {}) as writer:
            writer.add(["a"], None)
    assert not list(tmp_path.iterdir())


def test_many_rows_and_names_of_any_kind(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 5)).astype(np.float32)
    names = [f"{number}-é漢.png" for number in range(3000)]
    for suffix in ("npz", "parquet"):
        with open_writer(tmp_path / f"x.{suffix}", {"model": "m"}) as writer:
            for start in range(0, 3000, 7):
                writer.add(names[start : start + 7], vectors[start : start + 7])
        found = focalnet.Embeddings.load(tmp_path / f"x.{suffix}")
        assert (found.names, found.about) == (names, {"model": "m"})
        np.testing.assert_array_equal(found.vectors, vectors)
    assert found.nearest(2 * vectors[7], 1) == [(names[7], pytest.approx(1.0))]


def test_mistakes(capsys, model, folder, tmp_path, monkeypatch):
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for arguments, sentence in [
        (("embed", folder, "--model", model, "--out", tmp_path / "x.csv"), "are written as .npz or .parquet"),
        (("similar", "a.png", tmp_path / "none.npz"), "there is no file"),
        (("similar", "a.png", tmp_path / "bad.npz"), "holds no embeddings, or is damaged"),
        (("similar", tmp_path / "other.npz"), "holds no embeddings"),
        (("embed", folder / "0.png", "--model", model, "--out", tmp_path / "x.npz", "--device", "tpu"), "no device"),
    ]:
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert sentence in err
    with pytest.raises(UserError, match="this network takes audio"):
        focalnet.embed(focalnet.create_model("focalnet_tiny_srf", head="sound", num_classes=3), [])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"focalnet\[parquet\]"):
        open_writer(tmp_path / "x.parquet", {})


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_file_of_something_else_is_a_sentence(tmp_path, suffix):
    good = np.ones((2, 3), np.float32)
    path = tmp_path / f"x.{suffix}"
    for about in ("x", [1], {"model": "m", "weights": 3}):
        focalnet.Embeddings(["a", "b"], good, about).save(path)
        with pytest.raises(UserError, match="does not tell in words what made it"):
            focalnet.Embeddings.load(path)
    focalnet.Embeddings(["a", "b"], good * np.nan, {}).save(path)
    with pytest.raises(UserError, match="numbers that are none"):
        focalnet.Embeddings.load(path)
