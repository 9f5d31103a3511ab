"""Names of whole networks, and weights of every kind going into every kind of network."""

import logging

import pytest
import torch

import focalnet
from focalnet.errors import UserError
from focalnet.models.factory import create_backbone, create_model, load_weights, save_pretrained
from focalnet.models.heads import HEADS, PUBLISHED, list_models, parse_name
from focalnet.variants import VARIANTS
from focalnet.weights.convert import convert_file
from focalnet.weights.files import write_state_dict

MINI = "minifocal_128"
SMALL = {
    "mask_rcnn": {"fpn_channels": 16, "representation_size": 16},
    "dino": {"hidden_dim": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "ffn_dim": 16},
    "upernet": {"channels": 16, "aux_channels": 8},
    "mask2former": {"hidden_dim": 32, "heads": 2, "ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 2},
}
FOREIGN = {"mask_rcnn": "mmdet", "dino": "detrex", "upernet": "mmseg", "mask2former": "facebookresearch"}
TRUNK = {"embed_dim": 8, "depths": (1, 1, 1, 1)}


def small(head: str, **options):
    return create_model(f"{head}_{MINI}", **{**TRUNK, **SMALL[head], **options})


def assert_same(model, other):
    own, others = model.state_dict(), other.state_dict()
    assert own.keys() == others.keys()
    assert all(torch.equal(own[name], others[name]) for name in own)


def test_all_names_are_listed_and_understood():
    assert list_models() == [*VARIANTS, *PUBLISHED]
    assert focalnet.list_models("dino*4scale") == ["dino_focalnet_large_fl3_4scale", "dino_focalnet_huge_fl3_4scale"]
    for name in list_models():
        wanted = parse_name(name)
        assert wanted.name == name
        assert wanted.head == (name.split("_focalnet")[0] if name in PUBLISHED else "classifier")


def test_what_the_published_names_mean():
    wanted = parse_name("mask_rcnn_focalnet_small_lrf")
    assert (wanted.architecture.focal_windows, wanted.architecture.focal_levels) == ((9,) * 4, (3,) * 4)
    assert (wanted.num_classes, wanted.preprocessing.input_size, wanted.preprocessing.long_side) == (80, 800, 1333)
    assert parse_name("dino_focalnet_large_fl4_5scale").head_options == {"num_feature_levels": 5}
    assert parse_name("dino_focalnet_large_fl4_5scale").architecture == VARIANTS["focalnet_large_fl4"]
    assert parse_name("upernet_focalnet_tiny_srf").architecture.focal_windows == (9,) * 4
    assert parse_name("mask2former_focalnet_large_fl4").head_options == {"num_queries": 200}
    assert parse_name("focalnet_tiny_srf", head="dino") == parse_name("focalnet_tiny_srf", head="dino")
    assert parse_name("focalnet_tiny_srf", head="mask_rcnn").architecture.focal_windows == (9,) * 4


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("mask_rcnn_focalnet_tiny", {}, "did you mean 'mask_rcnn_focalnet_tiny_"),
        ("maskrcnn_focalnet_tiny_lrf", {}, "did you mean 'mask_rcnn_focalnet_tiny_lrf'"),
        ("focalnet_tiny_lrf", {"head": "dyno"}, "no head 'dyno'; did you mean 'dino'"),
        ("dino_minifocal_128", {"head": "upernet"}, "says the head dino, and head='upernet'"),
        ("upernet_minifocal_128_4scale", {}, "only dino has a number of scales"),
        ("dino_minifocal_128", {"num_querys": 3}, "no option of dino 'num_querys'; did you mean 'num_queries'"),
        ("minifocal_128", {"num_queries": 3}, "no FocalNet option 'num_queries'"),
    ],
)
def test_mistaken_names_get_the_nearest(name, options, sentence):
    with pytest.raises(UserError) as error:
        create_model(name, **options)
    assert sentence in str(error.value)


@pytest.mark.parametrize("head", HEADS)
def test_a_model_folder_gives_the_same_network(head, tmp_path):
    model = small(head, classes=["ant", "bee"]).eval()
    save_pretrained(model, tmp_path)
    again = create_model(weights=tmp_path)
    assert again.spec == model.spec
    assert not again.training
    assert_same(model, again)
    assert_same(model, create_model(f"{head}_{MINI}", weights=tmp_path, **TRUNK))


@pytest.mark.parametrize("head", HEADS)
def test_foreign_files_and_back(head, tmp_path):
    model = small(head, classes=["ant", "bee"])
    save_pretrained(model, tmp_path / "own")
    convert_file(tmp_path / "own", tmp_path / "foreign.safetensors", to=FOREIGN[head])
    again = create_model(weights=tmp_path / "foreign.safetensors")  # its header carries the spec
    assert again.spec == model.spec
    assert_same(model, again)
    back = {"dino": "official"}.get(head, "focalnet")
    convert_file(tmp_path / "foreign.safetensors", tmp_path / "back.pth", to=back)
    assert_same(model, load_weights(small(head, classes=["ant", "bee"]), tmp_path / "back.pth"))
    with pytest.raises(UserError, match="no layout of"):
        convert_file(tmp_path / "own", tmp_path / "x.pth", to="timm")


@pytest.mark.parametrize("head", HEADS)
def test_other_classes_give_new_class_layers_only(head, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="focalnet")
    model = small(head, classes=["ant", "bee"])
    save_pretrained(model, tmp_path)
    other = create_model(f"{head}_{MINI}", weights=tmp_path, classes=["cat", "dog", "cow"], **TRUNK)
    assert (other.spec.num_classes, other.spec.classes) == (3, ("cat", "dog", "cow"))
    fresh = set(other.class_parameters())
    own, others = model.state_dict(), other.state_dict()
    for name, tensor in own.items():
        assert (name in fresh) or torch.equal(tensor, others[name]), name
    assert any(own[name].shape != others[name].shape for name in fresh)
    assert "parameters are new and random" in caplog.text
    renamed = create_model(f"{head}_{MINI}", weights=tmp_path, classes=["cat", "dog"], **TRUNK)  # as many, others
    weights = [name for name in fresh if name.endswith("weight") and own[name].unique().numel() > 2]
    assert not all(torch.equal(own[name], renamed.state_dict()[name]) for name in weights)


@pytest.mark.parametrize("head", HEADS)
def test_classification_weights_start_the_backbone(head, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="focalnet")
    classifier = create_model(MINI, num_classes=5, **TRUNK)
    write_state_dict(tmp_path / "c.pth", classifier.state_dict(), wrapper="model")
    model = small(head, classes=["ant"], weights=tmp_path / "c.pth", focal_windows=9)
    trunk = model.trunk.state_dict()
    assert torch.equal(
        trunk["layers.2.blocks.0.mlp.fc1.weight"], classifier.state_dict()["layers.2.blocks.0.mlp.fc1.weight"]
    )
    kernel = trunk["layers.0.blocks.0.modulation.focal_layers.0.0.weight"]
    stored = classifier.state_dict()["layers.0.blocks.0.modulation.focal_layers.0.0.weight"]
    assert torch.equal(kernel[..., 3:6, 3:6], stored)
    torch.testing.assert_close(kernel.abs().sum(), stored.abs().sum())
    assert "head: new and random" in caplog.text


def test_a_backbone_out_of_a_detector(tmp_path):
    model = small("dino", classes=["ant"])
    save_pretrained(model, tmp_path)
    backbone = create_backbone(weights=tmp_path, out_indices=(1, 2, 3))
    assert_same(model.trunk, backbone)
    other = small("upernet", classes=["ant", "bee"], weights=tmp_path)
    assert torch.equal(other.trunk.layers[0].blocks[0].mlp.fc1.weight, model.trunk.layers[0].blocks[0].mlp.fc1.weight)


def test_weights_of_another_shape_are_refused_with_both_numbers(tmp_path):
    model = create_model(f"dino_{MINI}_5scale", classes=["ant"], **SMALL["dino"])
    save_pretrained(model, tmp_path / "five")
    with pytest.raises(UserError, match=r"has num_feature_levels=5, dino_minifocal_128_4scale asks for 4"):
        create_model(f"dino_{MINI}_4scale", weights=tmp_path / "five", **SMALL["dino"])
    convert_file(tmp_path / "five", tmp_path / "bare.pth", to="official")
    stripped = torch.load(tmp_path / "bare.pth")["model"]  # as released: no description
    write_state_dict(tmp_path / "bare.pth", stripped, wrapper="model")
    with pytest.raises(UserError, match=r"has num_feature_levels=5, dino_minifocal_128_4scale asks for 4"):
        create_model(f"dino_{MINI}_4scale", weights=tmp_path / "bare.pth", **SMALL["dino"])
    with pytest.raises(UserError, match=r"has embed_dim=32, dino_minifocal_64_5scale has 48"):
        create_model("dino_minifocal_64_5scale", weights=tmp_path / "bare.pth")


def test_raw_outputs_of_a_normalised_batch():
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found = small("mask_rcnn", num_classes=3).eval()(images)
        assert [sorted(picture) for picture in found] == [["boxes", "labels", "mask_probs", "masks", "scores"]] * 2
        assert found[0]["masks"].shape[1:] == (64, 96)
        outputs = small("dino", num_classes=3).eval()(images)
        assert outputs["pred_logits"].shape == (2, 60, 3)
        assert outputs["pred_boxes"].shape == (2, 60, 4)
        outputs = small("upernet", num_classes=3).eval()(images)
        assert outputs["logits"].shape == outputs["aux_logits"].shape == (2, 3, 64, 96)
        outputs = small("mask2former", num_classes=3).eval()(images)
        assert outputs["class_logits"].shape == (2, 30, 4)
        assert outputs["mask_logits"].shape == (2, 30, 16, 24)
