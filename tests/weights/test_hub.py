import dataclasses
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from focalnet.errors import UserError
from focalnet.inputs.image import Preprocessing
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.loading import load
from focalnet.variants import VARIANTS, FocalNetConfig, get_variant
from focalnet.weights import hub
from focalnet.weights.files import write_state_dict
from focalnet.weights.hub import ENTRIES, SOURCES, default_preprocessing, download, find, imagenet_classes
from focalnet.weights.layouts import convert_state_dict
from focalnet.weights.sources import resolve
from focalnet.weights.spec import ModelSpec, Said

MINI = get_variant("minifocal_32")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """An empty cache, so that no test depends on what the machine holds."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    return folder / "hub" / "checkpoints"


def mini_weights(num_classes: int = 5) -> dict[str, torch.Tensor]:
    return FocalNetClassifier(MINI, num_classes=num_classes).state_dict()


# the table


def test_every_variant_with_released_weights_is_found():
    plain = [f"focalnet_{size}_{field}" for size in ("tiny", "small", "base") for field in ("srf", "lrf")]
    iso = [f"focalnet_{size}_iso" for size in ("tiny", "small", "base")]
    large = [f"focalnet_{size}_{levels}" for size in ("large", "xlarge", "huge") for levels in ("fl3", "fl4")]
    for source, variants in {"official": plain + iso + large, "timm": plain + large, "transformers": plain}.items():
        rows = [row for row in ENTRIES.values() if row.source == source and row.head == "classifier"]
        assert sorted(row.variant for row in rows) == sorted(variants)
        for variant in variants:
            assert (find(variant, source).variant, find(variant, source).source) == (variant, source)


def test_rows_agree_with_timm():
    timm = pytest.importorskip("timm")
    for row in ENTRIES.values():
        if row.source != "timm":
            continue
        theirs = timm.get_pretrained_cfg(row.name.removeprefix("timm/"))
        assert theirs.hf_hub_id in ("timm/", row.repo)
        assert theirs.num_classes == row.num_classes
        assert theirs.license == row.licence
        ours = row.preprocessing
        assert (theirs.input_size[-1], theirs.crop_pct, theirs.interpolation) == (
            ours.input_size, ours.crop_pct, ours.interpolation,
        )  # fmt: skip
        assert (theirs.mean, theirs.std) == (ours.mean, ours.std)


def test_sizes_are_four_bytes_per_parameter():
    for row in ENTRIES.values():
        if row.head != "classifier" or row.source == "transformers":
            continue
        with torch.device("meta"):
            model = FocalNetClassifier(row.spec.architecture, num_classes=row.num_classes)
        assert row.size == pytest.approx(4 * sum(p.numel() for p in model.parameters()), rel=0.01), row.name


def test_facts_of_single_rows():
    assert find("focalnet_large_fl4").normalize_modulator
    assert find("focalnet_large_fl4", "timm").normalize_modulator  # the same file
    assert not find("focalnet_xlarge_fl4").normalize_modulator
    assert find("focalnet_huge_fl4").num_classes == 0
    assert find("focalnet_large_fl3").preprocessing == Preprocessing(input_size=384)
    assert find("focalnet_base_iso").spec.architecture.use_postln_in_modulation
    assert find("focalnet_tiny_lrf", "transformers").repo == "microsoft/focalnet-tiny-lrf"
    assert find("focalnet_tiny_srf", "transformers").repo == "microsoft/focalnet-tiny"
    assert find("focalnet_xlarge_fl4").url.endswith("/v1.0.0/focalnet_xlarge_lrf_384_fl4.pth")
    assert find("focalnet_tiny_lrf", head="sparse_rcnn").url.endswith("v1.0.1/focalnet_tiny_lrf_sparsercnn_3x.pth")
    assert len({row.local_path for row in ENTRIES.values()}) == len(ENTRIES)


def test_specs_carry_classes_and_licence():
    spec = find("focalnet_small_lrf").spec
    assert spec.classes == imagenet_classes()
    assert (spec.classes[0], spec.classes[850], spec.licence) == ("tench", "teddy", "mit")
    assert find("focalnet_large_fl3").spec.classes is None


def test_finding_is_friendly():
    assert find("FocalNet_Tiny_SRF", "TIMM") is ENTRIES["timm/focalnet_tiny_srf.ms_in1k"]
    assert find("focalnet_large_lrf_384.PTH").variant == "focalnet_large_fl3"
    with pytest.raises(UserError, match="no source of weights 'oficial'; did you mean 'official'"):
        find("focalnet_tiny_srf", "oficial")
    with pytest.raises(UserError, match="did you mean 'focalnet_tiny_srf'"):
        find("focalnet_tiny_sfr")
    with pytest.raises(UserError, match="no timm weights; there are some under 'official'"):
        find("focalnet_tiny_iso", "timm")
    with pytest.raises(UserError, match="no weights of minifocal_32 were ever released"):
        find("minifocal_32")


def test_preprocessing_without_weights():
    assert default_preprocessing("focalnet_large_fl3").input_size == 384
    assert default_preprocessing("focalnet_tiny_srf_deeper") == Preprocessing()
    assert default_preprocessing("minifocal_64") == Preprocessing(input_size=64, crop_pct=1.0)
    assert default_preprocessing("focalnet_tiny_srf").resize == 256


# downloads


class Server(BaseHTTPRequestHandler):
    content = bytes(range(256)) * 400
    ranges: list = []  # noqa: RUF012
    fail_after: int | None = None

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.end_headers()
        self.wfile.write(self.content[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Server.ranges = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/weights.pth"
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_download_goes_into_the_cache_and_happens_once(server, cache):
    entry = dataclasses.replace(find("focalnet_tiny_srf"), url=server)
    path = download(entry)
    assert path == cache / "focalnet_tiny_srf.pth"
    assert path.read_bytes() == Server.content
    assert download(entry) == path
    assert Server.ranges == [None]


def test_a_cut_off_download_goes_on_where_it_stopped(server, cache):
    entry = dataclasses.replace(find("focalnet_tiny_srf"), url=server)
    cache.mkdir(parents=True)
    (cache / "focalnet_tiny_srf.pth.partial").write_bytes(Server.content[:1000])
    assert download(entry).read_bytes() == Server.content
    assert Server.ranges == ["bytes=1000-"]
    assert not list(cache.glob("*.partial"))


def test_a_partial_file_that_is_too_long_is_dropped(server, cache):
    entry = dataclasses.replace(find("focalnet_tiny_srf"), url=server)
    cache.mkdir(parents=True)
    (cache / "focalnet_tiny_srf.pth.partial").write_bytes(bytes(len(Server.content) + 1))
    with pytest.raises(UserError, match="could not be downloaded"):
        download(entry)
    assert download(entry).read_bytes() == Server.content


@pytest.mark.parametrize("known_host", [True, False])
def test_without_connection_the_address_and_the_place_are_named(monkeypatch, cache, known_host):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host")

    def not_cached(*args, **kwargs):
        raise LocalEntryNotFoundError("not in the cache")

    if known_host:
        monkeypatch.setattr("huggingface_hub.file_download.http_get", refuse)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
        monkeypatch.setattr(hub, "_offline", lambda url: False)
    else:
        monkeypatch.setattr("socket.getaddrinfo", refuse)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", not_cached)
        monkeypatch.setattr("focalnet.weights.hub.getproxies", dict)
    for source in SOURCES:
        entry = find("focalnet_tiny_srf", source)
        with pytest.raises(UserError) as caught:
            download(entry)
        assert entry.url in str(caught.value)
        assert str(entry.local_path) in str(caught.value)
        assert ("no route to host" if known_host else "no connection to") in str(caught.value)
        assert entry.local_path.parent == cache
        cache.mkdir(parents=True, exist_ok=True)
        entry.local_path.touch()
        assert download(entry) == entry.local_path


def test_a_dead_link_says_so_and_a_copy_in_its_place_is_taken(cache):
    entry = find("focalnet_base_iso")
    with pytest.raises(UserError, match=r"refuses public access since 2023-05-31.*focalnet_base_iso_16\.pth"):
        download(entry)
    cache.mkdir(parents=True)
    entry.local_path.touch()
    assert download(entry) == cache / "focalnet_base_iso_16.pth"


def test_a_released_file_in_the_cache_of_the_hub_needs_no_connection(monkeypatch, tmp_path):
    asked = []

    def cached(repo, filename, local_files_only=False):
        asked.append(local_files_only)
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", cached)
    assert download(find("focalnet_tiny_srf", "timm")) == tmp_path / "model.safetensors"
    assert asked == [True]


# what stands after weights=


def model_folder(folder: Path, spec: ModelSpec, weights: dict[str, torch.Tensor]) -> Path:
    write_state_dict(folder / "model.safetensors", weights)
    (folder / "config.json").write_text(spec.to_json())
    return folder


def mini_spec(**changes) -> ModelSpec:
    return ModelSpec(variant="minifocal_32", architecture=MINI, num_classes=5, licence="cc0-1.0").replace(**changes)


def test_a_model_folder_tells_everything(tmp_path):
    spec = mini_spec(classes=tuple("abcde"), preprocessing=Preprocessing(input_size=32, crop_pct=1.0))
    weights = mini_weights()
    loaded = load(model_folder(tmp_path / "m", spec, weights))
    assert loaded.spec == spec
    assert loaded.spec.architecture.use_postln is False
    assert loaded.spec.says("architecture.use_postln") == Said.FILE
    assert all(torch.equal(loaded.state_dict[key], weights[key]) for key in weights)


def test_a_file_in_a_model_folder_is_described_by_its_neighbour(tmp_path):
    spec = mini_spec(classes=tuple("abcde"))
    folder = model_folder(tmp_path / "m", spec, mini_weights())
    assert load(folder / "model.safetensors").spec == spec
    write_state_dict(folder / "other.safetensors", mini_weights())
    assert load(folder / "other.safetensors").spec.classes is None


def test_what_leaves_no_trace_and_is_not_settled_is_said(cache, caplog):
    cache.mkdir(parents=True)
    caplog.set_level(logging.INFO, logger="focalnet")
    for variant, told in (("focalnet_large_fl4", True), ("focalnet_large_fl3", None), ("focalnet_xlarge_fl4", False)):
        caplog.clear()
        find(variant, "timm").local_path.touch()
        resolve("timm", variant)
        expected = f"{variant}: nothing in the weights tells normalize_modulator; took {told}"
        assert [record.message for record in caplog.records] == ([] if told is None else [expected])


def test_a_run_folder_gives_its_best_checkpoint_else_its_last(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"task": "classify"}')
    with pytest.raises(UserError, match=r"run holds no model\.safetensors or pytorch_model\.bin"):
        resolve(run)
    model_folder(run / "last", mini_spec(source="last"), mini_weights())
    assert resolve(run).path == run / "last" / "model.safetensors"
    model_folder(run / "best", mini_spec(source="best"), mini_weights())
    located = resolve(str(run))
    assert located.path == run / "best" / "model.safetensors"
    assert located.spec is not None
    assert located.spec.source == "best"
    assert resolve(run / "last").path == run / "last" / "model.safetensors"


def test_a_bare_file_is_recognised(tmp_path):
    write_state_dict(tmp_path / "w.pth", mini_weights())
    spec = load(tmp_path / "w.pth").spec
    assert (spec.variant, spec.architecture, spec.num_classes, spec.classes) == ("minifocal_32", MINI, 5, None)
    assert spec.preprocessing == Preprocessing(input_size=32, crop_pct=1.0)
    assert spec.source == "w.pth"  # not the path: it may be published


def test_a_thousand_classes_without_names_are_imagenet(tmp_path, caplog):
    write_state_dict(tmp_path / "w.pth", mini_weights(1000))
    with caplog.at_level(logging.INFO, logger="focalnet"):
        assert load(tmp_path / "w.pth").spec.classes == imagenet_classes()
    assert "1000 classes without names are taken for ImageNet-1K" in caplog.text


def test_a_bare_file_of_an_unknown_architecture_needs_a_name(tmp_path):
    other = FocalNetConfig(embed_dim=8, depths=(1, 1), focal_levels=(2,))
    write_state_dict(tmp_path / "w.pth", FocalNetClassifier(other).state_dict())
    with pytest.raises(UserError, match=r"w\.pth fits no known variant; name the model"):
        load(tmp_path / "w.pth")
    assert load(tmp_path / "w.pth", "focalnet_tiny_srf").spec.variant == "focalnet_tiny_srf"


def test_a_released_file_name_brings_the_facts_of_its_row(tmp_path):
    with torch.device("meta"):
        shapes = FocalNetClassifier(get_variant("focalnet_tiny_iso")).state_dict()
    path = tmp_path / "focalnet_tiny_iso_16.pth"
    write_state_dict(path, {key: torch.zeros(value.shape) for key, value in shapes.items()}, wrapper="model")
    assert load(path).spec == ENTRIES["focalnet_tiny_iso_16.pth"].spec
    write_state_dict(path, mini_weights(), wrapper="model")  # the name alone does not make it that file
    assert load(path).spec.variant == "minifocal_32"


def test_names_of_sources_and_files_go_through_the_table(cache):
    cache.mkdir(parents=True)
    for source in ("official", "TIMM", "transformers"):
        entry = find("focalnet_tiny_srf", source)
        entry.local_path.touch()
        assert resolve(source, "focalnet_tiny_srf").path == entry.local_path
        assert resolve(entry.name).spec == entry.spec
    with pytest.raises(UserError, match="weights='official' needs the name of a model"):
        resolve("official")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("oficial", "did you mean 'official'"),
        ("no/such/folder/w.pth", "no such file or folder"),
        ("w.pth", "no such file or folder"),
        ("../w", "no such file or folder"),
    ],
)
def test_what_is_nothing_of_all_that(weights, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        resolve(weights, "focalnet_tiny_srf")


class FakeHub:
    """A hub of folders: organisation/name -> folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []

    def __call__(self, repo: str, filename: str, local_files_only: bool = False) -> str:
        self.asked.append(f"{repo}/{filename}")
        path = self.root / repo / filename
        if not path.exists():
            raise EntryNotFoundError(f"404: {path}")
        return str(path)


@pytest.fixture
def fake_hub(tmp_path, monkeypatch) -> FakeHub:
    fake = FakeHub(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake)
    monkeypatch.setattr(hub, "_offline", lambda url: False)
    return fake


@pytest.mark.parametrize(
    "form", ["me/flowers", "hf-hub:me/flowers", "hf_hub:me/flowers", "https://huggingface.co/me/flowers"]
)
def test_a_hub_id_of_ours(fake_hub, form):
    spec = mini_spec(classes=tuple("abcde"))
    model_folder(fake_hub.root / "me" / "flowers", spec, mini_weights())
    assert load(form).spec == spec


def test_a_hub_id_of_timm(fake_hub):
    folder = fake_hub.root / "you" / "timm-net.v2"
    config = FocalNetConfig(
        embed_dim=8, depths=(1, 1, 1, 1), focal_levels=(4,), use_conv_embed=True, use_postln=True, layerscale_value=1e-4
    )
    weights = FocalNetClassifier(config, num_classes=3).state_dict()
    write_state_dict(folder / "pytorch_model.bin", convert_state_dict(weights, to="timm", use_postln=True))
    description = {
        "architecture": "focalnet_large_fl4",
        "num_classes": 3,
        "num_features": 64,
        "label_names": ["a", "b", "c"],
        "model_args": {"embed_dim": 8, "depths": [1, 1, 1, 1], "drop_rate": 0.1},
        "pretrained_cfg": {
            "input_size": [3, 192, 192], "crop_pct": 0.95, "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25], "license": "mit", "num_classes": 3,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(description))
    loaded = load("you/timm-net.v2")
    assert all(torch.equal(loaded.state_dict[key], weights[key]) for key in weights)
    assert loaded.spec == ModelSpec(
        variant="focalnet_large_fl4",
        # timm builds this net without dividing the modulator, so this is what the weights were trained in
        architecture=config.replace(normalize_modulator=False, drop_path_rate=0.5),
        num_classes=3,
        classes=("a", "b", "c"),
        preprocessing=Preprocessing(
            input_size=192, crop_pct=0.95, interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3
        ),
        licence="mit",
        source="you/timm-net.v2",
    )
    assert loaded.spec.architecture.use_postln is True
    assert loaded.spec.says("architecture.use_postln") == Said.FILE

    description["model_args"]["head_hidden_size"] = 4  # type: ignore[index]
    (folder / "config.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="builds the model with head_hidden_size"):
        load("you/timm-net.v2")
    (folder / "config.json").write_text(json.dumps(description | {"architecture": "resnet50"}))
    with pytest.raises(UserError, match="timm's 'resnet50', no FocalNet"):
        load("you/timm-net.v2")


def test_a_hub_id_in_the_table_keeps_the_facts_of_its_row(fake_hub):
    folder = fake_hub.root / "timm" / "focalnet_large_fl4.ms_in22k"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    located = resolve("timm/focalnet_large_fl4.ms_in22k")
    assert located.path == folder / "model.safetensors"
    assert located.spec is not None
    assert located.spec.architecture.normalize_modulator


@pytest.fixture
def transformers_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.FocalNetConfig(
        embed_dim=8, depths=[1, 1], focal_levels=[2, 3], focal_windows=[3, 5], hidden_sizes=[8, 16],
        use_layerscale=True, use_post_layernorm=True, normalize_modulator=True, image_size=64,
        id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    transformers.FocalNetForImageClassification(config).save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def test_a_folder_that_transformers_wrote(transformers_folder):
    folder = transformers_folder
    spec = load(folder).spec
    assert spec.architecture == FocalNetConfig(
        embed_dim=8, depths=(1, 1), focal_levels=(2, 3), focal_windows=(3, 5), use_postln=True, layerscale_value=1e-4,
        normalize_modulator=True, drop_path_rate=0.1,
    )  # fmt: skip
    assert (spec.variant, spec.classes) == ("custom", ("cat", "dog"))
    assert spec.preprocessing == Preprocessing(input_size=64, crop_pct=0.875, interpolation="bilinear")

    processor = {"size": {"height": 80, "width": 80}, "crop_size": {"height": 72, "width": 72}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": [0.5] * 3}))
    preprocessing = load(folder).spec.preprocessing
    assert preprocessing == Preprocessing(input_size=72, crop_pct=0.9, interpolation="bicubic", mean=(0.5,) * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"hidden_act": "relu"}, "hidden_act='relu'"), ({"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06")],
)
def test_what_focalnet_does_not_have_is_refused(transformers_folder, change, message):
    folder = transformers_folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json is damaged: it is no JSON that can be read"),
        ("[]", "holds a list of 0, no object with named fields"),
        ('{"model_type": "swin"}', "describes swin, no FocalNet"),
        ("{}", "something else"),
        ('{"architecture": {}, "variant": "x"}', r"config\.json: architecture lacks embed_dim"),
    ],
)
def test_a_config_of_something_else(tmp_path, text, message):
    write_state_dict(tmp_path / "model.safetensors", mini_weights())
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_a_hub_without_the_files(fake_hub):
    with pytest.raises(UserError, match=r"me/nothing could not be downloaded from https://huggingface.co/me/nothing"):
        load("me/nothing")
    folder = fake_hub.root / "me" / "empty"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(mini_spec().to_json())
    with pytest.raises(UserError, match=r"me/empty could not be downloaded .*404"):
        load("hf-hub:me/empty")


def test_a_description_that_contradicts_the_names_is_refused(tmp_path):
    config = MINI.replace(use_postln=True)
    weights = convert_state_dict(FocalNetClassifier(config, num_classes=5).state_dict(), to="timm", use_postln=True)
    model_folder(tmp_path / "m", mini_spec(), weights)
    with pytest.raises(UserError, match="has res-post-norm blocks, but its description says otherwise"):
        load(tmp_path / "m")


def test_every_variant_name_is_lower_case():
    assert all(name == name.lower() for name in VARIANTS)  # `find` relies on it


# golden values of the conversion script of transformers: COCO val2017 000000039769, resize 256 bilinear, crop 224

GOLDEN = {
    "focalnet_tiny_srf": (0.2166, -0.4368, 0.2191),
    "focalnet_tiny_lrf": (1.1669, 0.0125, -0.1695),
    "focalnet_small_srf": (0.4917, -0.0430, 0.1341),
    "focalnet_small_lrf": (-0.2588, -0.5342, -0.2331),
    "focalnet_base_srf": (-0.1655, -0.4090, -0.1730),
    "focalnet_base_lrf": (0.5306, -0.0483, -0.3928),
}
HUB_DIR = Path(torch.hub.get_dir())


@pytest.mark.slow
@pytest.mark.parametrize("variant", GOLDEN)
def test_golden_logits(variant, monkeypatch):
    from PIL import Image
    from torchvision.transforms import v2

    from focalnet.models.create import create_model

    monkeypatch.undo()  # the real cache
    picture = HUB_DIR / "checkpoints" / "000000039769.jpg"
    entry = find(variant)
    if not (picture.is_file() and entry.local_path.is_file()):
        pytest.skip(
            f"needs {entry.url} and COCO val2017 {picture.name} in {picture.parent}; the test downloads nothing"
        )
    preprocessing = find(variant, "transformers").preprocessing
    transform = v2.Compose(
        [
            v2.Resize(preprocessing.resize, v2.InterpolationMode.BILINEAR),
            v2.CenterCrop(preprocessing.input_size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(preprocessing.mean), list(preprocessing.std)),
        ]
    )
    with Image.open(picture) as image, torch.inference_mode():
        logits = create_model(variant, weights="official")(transform(image.convert("RGB"))[None])
    torch.testing.assert_close(logits[0, :3], torch.tensor(GOLDEN[variant]), rtol=0, atol=1e-4)
