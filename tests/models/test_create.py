import json
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from focalnet.backbone import FocalNet
from focalnet.errors import UserError
from focalnet.inputs.image import Preprocessing
from focalnet.models import registry
from focalnet.models.classifier import model as classifier
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.convert import convert_file
from focalnet.models.create import (
    create_backbone,
    create_model,
    load_weights,
)  # fmt: skip
from focalnet.models.family import Family
from focalnet.models.publish import push_to_hub, save_pretrained
from focalnet.models.registry import build
from focalnet.variants import get_variant
from focalnet.weights.card import Evaluation
from focalnet.weights.files import write_state_dict
from focalnet.weights.hub import ENTRIES, imagenet_classes
from focalnet.weights.layouts import convert_state_dict
from focalnet.weights.spec import ModelSpec

MINI = "minifocal_32"
IMAGES = torch.randn(2, 3, 37, 50, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    return folder / "hub" / "checkpoints"


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="focalnet")
    return caplog


def perturbed(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def file_of(path: Path, num_classes: int = 5, **overrides) -> FocalNetClassifier:
    model = FocalNetClassifier(get_variant(MINI).replace(**overrides), num_classes=num_classes)
    perturbed(model)
    write_state_dict(path, model.state_dict(), wrapper="model" if path.suffix == ".pth" else None)
    return model


def messages(log) -> list[str]:
    return [record.message for record in log.records]


# create_model


def test_random_weights():
    model = create_model("minifocal_64", drop_path_rate=0.3, recompute="block", focal_windows=5)
    assert model.training
    assert model.config == get_variant("minifocal_64").replace(drop_path_rate=0.3, focal_windows=5)
    assert model.layers[0].recompute == "block"
    assert model.spec == ModelSpec(
        variant="minifocal_64", architecture=model.config, preprocessing=Preprocessing(input_size=64, crop_pct=1.0)
    )
    assert create_model(MINI, classes=["a", "b"]).head.out_features == 2
    assert create_model(MINI, num_classes=0).head.__class__ is nn.Identity
    assert create_model(MINI, device="meta").head.weight.is_meta


def test_words_of_timm_are_answered_with_ours():
    for option, ours in {
        "pretrained": "weights=",
        "in_chans": "in_channels",
        "features_only": "create_backbone",
    }.items():
        with pytest.raises(UserError, match=f"create_model has no option '{option}': .*{ours}"):
            create_model(MINI, **{option: True})


def test_mistakes_in_the_call(tmp_path):
    with pytest.raises(UserError, match="give the name of a model"):
        create_model()
    with pytest.raises(UserError, match="did you mean 'focalnet_tiny_lrf'"):
        create_model("focalnet_tiny_lfr")
    with pytest.raises(UserError, match="no FocalNet option 'focal_window'; did you mean 'focal_windows'"):
        create_model(MINI, focal_window=9)
    with pytest.raises(UserError, match="2 class names for 3 classes"):
        create_model(MINI, num_classes=3, classes=["a", "b"])
    with pytest.raises(UserError, match="no such file or folder"):
        create_model(MINI, weights=tmp_path / "nothing.pth")


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("layout", ["official", "timm", "transformers"])
def test_a_file_in_every_layout_gives_the_same_logits(tmp_path, layout, suffix, log):
    source = file_of(tmp_path / "w.pth")
    path = convert_file(tmp_path / "w.pth", tmp_path / f"v{suffix}", to=layout)
    log.clear()
    for name in (MINI, None):
        model = create_model(name, weights=path)
        assert not model.training
        assert torch.equal(model(IMAGES), source(IMAGES))
        assert (model.spec.variant, model.spec.num_classes, model.spec.source) == (MINI, 5, f"v{suffix}")
    assert messages(log) == []


def test_the_released_file_brings_classes_preprocessing_and_licence(cache, log):
    source = perturbed(FocalNetClassifier(get_variant("focalnet_tiny_iso")))
    entry = ENTRIES["focalnet_tiny_iso_16.pth"]
    write_state_dict(entry.local_path, source.state_dict(), wrapper="model")
    model = create_model("focalnet_tiny_iso", weights="official")
    assert model.spec == entry.spec
    assert model.spec.classes == imagenet_classes()
    assert (model.spec.licence, model.spec.source) == ("mit", entry.url)
    assert torch.equal(model(IMAGES), source(IMAGES))
    assert messages(log) == []


def test_a_new_number_of_classes_is_said_in_one_line(tmp_path, log):
    source = file_of(tmp_path / "w.safetensors")
    model = create_model(MINI, weights=tmp_path / "w.safetensors", num_classes=7)
    assert messages(log) == ["head: new and random, 7 classes (the weights have 5)"]
    assert torch.equal(model.forward_features(IMAGES), source.forward_features(IMAGES))
    assert model(IMAGES).shape == (2, 7)
    assert model.spec.classes is None


def test_other_names_of_as_many_classes_give_a_new_head_too(tmp_path, log):
    trained = create_model(MINI, classes=["ant", "bee"])
    save_pretrained(perturbed(trained), tmp_path / "m")
    same = create_model(weights=tmp_path / "m", classes=["ant", "bee"])
    assert torch.equal(same.head.weight, trained.head.weight)
    assert messages(log) == []
    other = create_model(weights=tmp_path / "m", classes=["cat", "dog"])
    assert not torch.equal(other.head.weight, trained.head.weight)
    assert messages(log) == ["head: new and random, 2 classes (the weights have 2)"]
    assert other.spec.classes == ("cat", "dog")


def test_names_for_a_file_without_names_keep_the_head(tmp_path, log):
    source = file_of(tmp_path / "w.pth")
    model = create_model(MINI, weights=tmp_path / "w.pth", classes=list("abcde"))
    assert torch.equal(model.head.weight, source.head.weight)
    assert model.spec.classes == tuple("abcde")
    assert messages(log) == []


def test_a_22k_head_for_imagenet_1k(tmp_path, log):
    source = file_of(tmp_path / "w.safetensors", num_classes=21842)
    assert create_model(MINI, weights=tmp_path / "w.safetensors").spec.num_classes == 21842
    model = create_model(MINI, weights=tmp_path / "w.safetensors", num_classes=1000)
    assert torch.equal(model.head.weight, source.head.weight[:1000])
    assert model.spec.classes == imagenet_classes()
    assert len(log.records) == 1
    own = create_model(MINI, weights=tmp_path / "w.safetensors", classes=[f"class {i}" for i in range(1000)])
    assert not torch.equal(own.head.weight, source.head.weight[:1000])


def test_overrides_adapt_the_weights(tmp_path, log):
    source = file_of(tmp_path / "w.pth")
    model = create_model(MINI, weights=tmp_path / "w.pth", focal_windows=7)
    torch.testing.assert_close(model(IMAGES), source(IMAGES), rtol=1e-5, atol=1e-5)
    assert model.spec.architecture.focal_windows == (7, 7, 7)
    assert "zero-padded" in log.text
    with pytest.raises(UserError, match=r"gamma_1.*they look like minifocal_32"):
        create_model(MINI, weights=tmp_path / "w.pth", layerscale_value=1e-4)


def test_another_variant_of_the_same_width_takes_the_weights(tmp_path):
    """SRF -> LRF: the name in the call says what to build."""
    source = file_of(tmp_path / "w.pth")
    assert source.config.focal_levels == (2, 2, 2)
    model = create_model(MINI, weights=tmp_path / "w.pth", focal_levels=3)
    assert model.config.focal_levels == (3, 3, 3)
    with pytest.raises(UserError, match="they look like minifocal_32"):
        create_model("minifocal_64", weights=tmp_path / "w.pth")


def test_norms_on_the_wrong_side_are_refused(tmp_path):
    source = FocalNetClassifier(get_variant(MINI).replace(use_postln=True), num_classes=5)
    write_state_dict(tmp_path / "w.pth", convert_state_dict(source.state_dict(), to="timm", use_postln=True))
    with pytest.raises(
        UserError, match="of res-post-norm blocks, the model has pre-norm ones; build it with use_postln=True"
    ):
        create_model(MINI, weights=tmp_path / "w.pth")
    model = create_model(MINI, weights=tmp_path / "w.pth", use_postln=True)
    assert torch.equal(model(IMAGES), source.eval()(IMAGES))


def test_an_option_that_leaves_no_trace_is_the_callers(tmp_path):
    file_of(tmp_path / "w.pth")
    plain = create_model(MINI, weights=tmp_path / "w.pth")
    divided = create_model(MINI, weights=tmp_path / "w.pth", normalize_modulator=True)
    assert divided.spec.architecture.normalize_modulator
    assert not torch.equal(plain(IMAGES), divided(IMAGES))
    with torch.no_grad():
        for name, parameter in divided.named_parameters():
            if name.endswith("modulation.h.weight"):
                parameter *= 3  # L + 1
    torch.testing.assert_close(plain(IMAGES), divided(IMAGES), rtol=1e-5, atol=1e-5)


# create_backbone


def test_backbone_of_classification_weights(tmp_path, log):
    source = file_of(tmp_path / "w.pth")
    backbone = create_backbone(
        MINI, weights=tmp_path / "w.pth", focal_windows=(9, 9, 9), out_indices=(1, 2), frozen_stages=2
    )
    assert (backbone.channels, backbone.strides) == ((64, 128), (4, 8))
    assert not backbone.patch_embed.proj.weight.requires_grad
    assert len(log.records) == 2  # the classifier's parts, the kernels
    images = IMAGES[..., :32, :48]  # the strides divide it: nothing is padded
    expected = source.forward_stages(images)[1:]
    for ours, theirs in zip(backbone(images), expected, strict=True):
        theirs = nn.functional.layer_norm(theirs, theirs.shape[-1:]).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (backbone.spec.head, backbone.spec.num_classes, backbone.spec.classes) == ("backbone", 0, None)


def test_backbone_of_every_shape():
    assert create_backbone("focalnet_tiny_iso", device="meta").strides == (16,)
    assert create_backbone(MINI).strides == (2, 4, 8)
    assert create_backbone(MINI).training
    with pytest.raises(UserError, match="out_indices"):
        create_backbone(MINI, out_indices=(0, 3))


def test_backbone_folder(tmp_path):
    backbone = perturbed(create_backbone(MINI))
    save_pretrained(backbone, tmp_path / "b")
    again = create_backbone(weights=tmp_path / "b")
    assert again.spec == backbone.spec
    for ours, theirs in zip(again(IMAGES), backbone(IMAGES), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(UserError, match="holds a backbone, no classifier; use create_backbone"):
        create_model(weights=tmp_path / "b")


# load_weights


def test_weights_into_a_model_that_exists(tmp_path, log):
    source = file_of(tmp_path / "w.pth")
    model = create_model(MINI, num_classes=5)
    assert load_weights(model, tmp_path / "w.pth") is model
    assert torch.equal(model.eval()(IMAGES), source(IMAGES))
    assert model.spec.source == "w.pth"

    bare = FocalNet(get_variant(MINI), out_indices=(0, 1, 2))
    load_weights(bare, tmp_path / "w.pth")
    assert torch.equal(bare.patch_embed.proj.weight, source.patch_embed.proj.weight)
    assert (bare.spec.head, bare.spec.variant, bare.spec.num_classes) == ("backbone", MINI, 0)
    create_again = build(bare.spec)
    create_again.load_state_dict(bare.state_dict())


def test_weights_of_a_source_by_name(cache):
    source = perturbed(FocalNetClassifier(get_variant("focalnet_tiny_iso")))
    write_state_dict(ENTRIES["focalnet_tiny_iso_16.pth"].local_path, source.state_dict(), wrapper="model")
    for model in (create_model("focalnet_tiny_iso", num_classes=3), FocalNetClassifier(source.config)):
        load_weights(model, "official")
        assert torch.equal(model.norm.weight, source.norm.weight)
        assert model.spec.licence == "mit"
    assert model.spec.classes == imagenet_classes()


# save_pretrained, push_to_hub


def test_a_model_folder_gives_the_model_back(tmp_path):
    model = perturbed(
        create_model(MINI, classes=["ant", "bee"], focal_windows=5, drop_path_rate=0.2, normalize_modulator=True)
    )
    model.spec = model.spec.replace(
        licence="cc-by-4.0", source="three ants", preprocessing=Preprocessing(input_size=48)
    )
    folder = save_pretrained(model, tmp_path / "deep" / "insects")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = create_model(weights=folder)
    assert again.spec == model.spec
    assert torch.equal(again(IMAGES), model(IMAGES))
    changed = create_model(MINI, weights=folder, drop_path_rate=0.0)
    assert changed.config == model.config.replace(drop_path_rate=0.0)


def test_the_model_card_says_what_one_needs(tmp_path):
    model = create_model(MINI, classes=[f"insect {i}" for i in range(30)])
    model.spec = model.spec.replace(licence="cc-by-4.0", source="focalnet train --data insects")
    card = (save_pretrained(model, tmp_path / "insects") / "README.md").read_text()
    body = card.removeprefix("---\n").split("---\n", 1)[1]
    assert ModelCard(card).data.to_dict() == {
        "license": "cc-by-4.0",
        "library_name": "focalnet",
        "pipeline_tag": "image-classification",
        "tags": ["focalnet", "focal-modulation"],
    }
    assert 'import focalnet\nmodel = focalnet.create_model(weights="insects")\nlogits = model(images)' in body
    assert "30: insect 0, insect 1," in body
    assert "and 10 more" in body
    assert "Resize the shorter side to 32 pixels (bicubic), crop the centre to 32" in body
    assert "focalnet train --data insects" in body
    assert str(tmp_path) not in card
    unknown = (save_pretrained(create_backbone(MINI), tmp_path / "b") / "README.md").read_text()
    assert "license" not in unknown.split("---\n")[1]
    assert "not recorded" in unknown
    assert "create_backbone" in unknown
    assert "feature maps at strides 2, 4, 8" in unknown


def test_the_model_card_has_the_metrics(tmp_path):
    model = create_model(MINI, classes=["ant", "bee"])
    evaluation = Evaluation({"top1": 0.9375}, "200 insects")
    card = (save_pretrained(model, tmp_path / "insects", evaluation=evaluation) / "README.md").read_text()
    (result,) = ModelCard(card).data.eval_results
    assert (result.task_type, result.dataset_name) == ("image-classification", "200 insects")
    assert (result.metric_type, result.metric_value) == ("top1", 0.9375)
    assert "On 200 insects:\n\n| metric | value |\n| --- | ---: |\n| top1 | 0.9375 |" in card


@pytest.mark.parametrize("word", ["metrics", "figures"])
def test_a_run_brings_its_metrics(tmp_path, word):
    run = tmp_path / "run"
    save_pretrained(create_model(MINI, classes=["ant", "bee"]), run / "best")
    metrics = {"val_loss": 0.25, "top1": 0.75, "val_images_per_second": 99.0}
    (run / "evaluation.json").write_text(json.dumps({word: metrics}))
    (run / "config.json").write_text(json.dumps({"task": {"name": "classify", "data": "/home/me/insects"}}))
    card = (save_pretrained(run, tmp_path / "insects") / "README.md").read_text()
    (result,) = ModelCard(card).data.eval_results
    assert (result.metric_type, result.metric_value) == ("top1", 0.75)
    assert result.dataset_name == "the held-out split of insects"
    assert "/home/me" not in card
    (run / "evaluation.json").unlink()
    assert Evaluation.of_run(run) is None


def test_a_model_without_a_spec_cannot_be_saved(tmp_path):
    with pytest.raises(UserError, match="make it with create_model"):
        save_pretrained(FocalNetClassifier(get_variant(MINI)), tmp_path)


class FakeApi:
    uploads: dict[str, dict[str, bytes]] = {}  # noqa: RUF012
    refuse = False

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.refuse:
            raise PermissionError("401 Unauthorized\nlong story")
        assert exist_ok
        self.uploads[repo_id] = {"private": bytes([private]), "token": str(self.token).encode()}

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.uploads[repo_id] |= {file.name: file.read_bytes() for file in Path(folder_path).iterdir()}
        self.uploads[repo_id]["message"] = commit_message.encode()


def test_publishing(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    model = perturbed(create_model(MINI, classes=["ant", "bee"]))
    address = push_to_hub(model, "me/insects", private=True, message="two insects", token="secret")
    assert address == "https://huggingface.co/me/insects"
    sent = FakeApi.uploads["me/insects"]
    assert (sent["private"], sent["token"], sent["message"]) == (b"\x01", b"secret", b"two insects")
    assert b'create_model(weights="me/insects")' in sent["README.md"]
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(sent[name])
    assert torch.equal(create_model(weights=tmp_path)(IMAGES), model(IMAGES))
    monkeypatch.setattr(FakeApi, "refuse", True)
    with pytest.raises(UserError, match=r"me/insects could not be published .401 Unauthorized.; check"):
        push_to_hub(model, "me/insects")


# other heads


def test_a_new_kind_of_head_is_one_entry(monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class PooledOptions:
        scale: int = 1

    class Pooled(nn.Module):
        Options = PooledOptions

        def __init__(self, architecture, *, num_classes, options):
            super().__init__()
            self.scale = options.scale

    monkeypatch.setattr(classifier, "Pooled", Pooled, raising=False)
    monkeypatch.setattr(registry, "_KNOWN", {})
    row = registry.register(
        Family(
            name="pooled", model="focalnet.models.classifier.model:Pooled", num_classes=3, purpose="pools",
            pipeline="image-feature-extraction", learns="nothing",
        )
    )  # fmt: skip
    spec = ModelSpec(variant=MINI, architecture=get_variant(MINI), head="pooled", head_options={"scale": 2})
    model = build(spec)
    assert (model.spec, model.scale, row.options()) == (spec, 2, ["scale"])
    with pytest.raises(UserError, match="no kind of head 'pool'; did you mean 'pooled'"):
        build(spec.replace(head="pool"))


# convert, with what a model folder knows


def test_converting_a_model_folder_carries_its_spec(tmp_path, log):
    model = perturbed(create_model(MINI, classes=["ant", "bee"], use_postln=True, normalize_modulator=True))
    save_pretrained(model, tmp_path / "m")
    path = convert_file(tmp_path / "m", tmp_path / "timm.safetensors", to="timm")  # knows where the norms stand
    assert "build it in timm with normalize_modulator=True" in log.text
    again = create_model(weights=path)
    assert again.spec == model.spec
    assert torch.equal(again(IMAGES), model(IMAGES))
    convert_file(path, tmp_path / "official.pth", to="official")
    assert create_model(weights=tmp_path / "official.pth").spec == model.spec
    assert json.loads((tmp_path / "m" / "config.json").read_text())["classes"] == ["ant", "bee"]


@pytest.mark.parametrize(("spatial_dims", "sizes"), [(1, (64,)), (3, (16, 24, 32))])
def test_sequences_and_volumes(tmp_path, spatial_dims, sizes):
    """Made by name, saved, read back whole, as a backbone with larger kernels, and from a bare file."""
    axes = {"spatial_dims": spatial_dims, "in_channels": 1}
    model = create_model("minifocal_32", num_classes=4, **axes).eval()
    folder = save_pretrained(model, tmp_path / "model")
    x = torch.randn(2, 1, *sizes)
    expected = model(x)
    assert torch.equal(create_model(weights=folder)(x), expected)
    maps = create_backbone(weights=folder, focal_windows=5)(x)
    assert [feature.shape[1:] for feature in maps] == [
        (channels, *(size // stride for size in sizes)) for channels, stride in [(32, 2), (64, 4), (128, 8)]
    ]
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert torch.equal(create_model("minifocal_32", weights=tmp_path / "w.pth", **axes)(x), expected)
    with pytest.raises(UserError, match="do not fit the model"):
        create_model("minifocal_32", weights=tmp_path / "w.pth")


HEADS = [family for family in registry.families(named=True) if not family.networks]


@pytest.mark.parametrize("family", HEADS, ids=lambda family: family.name)
def test_detectors_and_segmenters_take_images(family):
    with pytest.raises(UserError, match=f"{family.name} works with spatial_dims=2, not 3"):
        create_model("focalnet_tiny_srf", head=family.name, spatial_dims=3)


@pytest.mark.parametrize("family", ["mask_rcnn", "dino"])
def test_how_many_objects_are_told_is_no_part_of_the_architecture(tmp_path, family):
    model = create_model(f"{family}_minifocal_128", classes=["a", "b"], embed_dim=8, depths=(1, 1, 1, 1))
    model.spec = model.spec.replace(category_ids=(3, "x"))
    save_pretrained(model, tmp_path)
    again = create_model(weights=tmp_path)
    assert (again.detections, again.spec.category_ids) == (model.detections, (3, "x"))
    more = create_model(None, weights=tmp_path, detections=25)
    assert (more.detections, more.spec.head_options["detections"]) == (25, 25)
    save_pretrained(more, tmp_path / "more")
    assert create_model(weights=tmp_path / "more").detections == 25
    other = create_model(weights=tmp_path, classes=["a", "b", "c"])
    assert other.spec.category_ids is None
