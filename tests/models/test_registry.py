"""Names of whole networks, and weights of every kind going into every kind of network."""

import json
import logging
import re
from dataclasses import dataclass

import PIL.Image
import pytest
import torch
from torch import nn

import focalnet
from focalnet.backbone import FocalNet
from focalnet.engine.config import TrainConfig
from focalnet.engine.train import train
from focalnet.errors import UserError
from focalnet.inputs.image import Image
from focalnet.labels import ADE20K_CLASSES
from focalnet.models import registry
from focalnet.models.base import Network
from focalnet.models.convert import convert_file
from focalnet.models.create import create_backbone, create_model, load_model, load_weights
from focalnet.models.family import Family, On, Suffix
from focalnet.models.publish import save_pretrained
from focalnet.models.registry import families, get_family, list_models, parse_name, published
from focalnet.tasks.classify import Classify
from focalnet.variants import VARIANTS
from focalnet.weights.architecture import shape_of
from focalnet.weights.files import write_state_dict
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming

HEADS = [family.name for family in families(named=True) if family.num_classes]
PUBLISHED = published()
MINI = "minifocal_128"
SMALL = {
    "mask_rcnn": {"fpn_channels": 16, "representation_size": 16},
    "dino": {"hidden_dim": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "ffn_dim": 16},
    "upernet": {"channels": 16, "aux_channels": 8},
    "mask2former": {"hidden_dim": 32, "heads": 2, "ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 2},
    "video_focalnet": {},
    "focal_unet": {},
    "sound": {"embedding": 8},
    "atss": {"channels": 16},
    "sparse_rcnn": {"channels": 16, "stages": 2, "num_queries": 6, "ffn_dim": 16, "dynamic_dim": 4, "box_depth": 2},
    "cascade_mask_rcnn": {"fpn_channels": 16, "representation_size": 16, "head_depth": 1},
}
UNSEEN = {"dino": {"points": 2}}  # of what small networks have otherwise: no shape tells heads from points
FOREIGN = {
    "mask_rcnn": "mmdet",
    "dino": "detrex",
    "upernet": "mmseg",
    "mask2former": "facebookresearch",
    "video_focalnet": "official",
    "focal_unet": "official",
    "sound": "speechbrain",
    "atss": "mmdet",
    "sparse_rcnn": "mmdet",
    "cascade_mask_rcnn": "mmdet",
}
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
        ending = name.removeprefix(wanted.head).removeprefix("_").removeprefix("focalnet_").split("_")[0]
        assert wanted.variant.removeprefix("focalnet_").startswith(ending)
        assert name.startswith(wanted.head) if name in PUBLISHED else wanted.head == "classifier"


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
        ("upernet_minifocal_128", {"num_classes": 0}, "a upernet needs a class at least; create_backbone gives"),
        ("dino_minifocal_128", {"classes": []}, "a dino needs a class at least"),
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
    back = {"dino": "official", "video_focalnet": "official"}.get(head, "focalnet")
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
    assert re.search("parameters are new and random|head: new and random", caplog.text)
    renamed = create_model(f"{head}_{MINI}", weights=tmp_path, classes=["cat", "dog"], **TRUNK)  # as many, others
    weights = [name for name in fresh if name.endswith("weight") and own[name].unique().numel() > 2]
    assert not all(torch.equal(own[name], renamed.state_dict()[name]) for name in weights)


@pytest.mark.parametrize("head", HEADS)
def test_classification_weights_start_the_backbone(head, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="focalnet")
    classifier = create_model(MINI, num_classes=5, **TRUNK)
    write_state_dict(tmp_path / "c.pth", classifier.state_dict(), wrapper="model")
    model = small(head, classes=["ant"], weights=tmp_path / "c.pth", focal_windows=9)
    trunk = model.focalnet.state_dict()
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
    assert_same(model.focalnet, backbone)
    other = small("upernet", classes=["ant", "bee"], weights=tmp_path)
    assert torch.equal(
        other.focalnet.layers[0].blocks[0].mlp.fc1.weight, model.focalnet.layers[0].blocks[0].mlp.fc1.weight
    )


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


def test_raw_outputs_of_a_normalized_batch():
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        model = small("mask_rcnn", num_classes=3).eval()
        outputs = model(images)
        shapes = {name: tuple(value.shape) for name, value in outputs._asdict().items()}
        assert shapes == {"boxes": (2, 30, 4), "scores": (2, 30), "labels": (2, 30), "mask_probs": (2, 30, 28, 28)}
        assert model.postprocess(outputs, torch.tensor([[64, 96]] * 2))[0].masks.shape[1:] == (64, 96)
        outputs = small("dino", num_classes=3).eval()(images)
        assert outputs.pred_logits.shape == (2, 60, 3)
        assert outputs.pred_boxes.shape == (2, 60, 4)
        outputs = small("upernet", num_classes=3).eval()(images)
        assert outputs.logits.shape == (2, 3, 64, 96)
        assert outputs.aux_logits.shape == (2, 3, 4, 6)
        outputs = small("mask2former", num_classes=3).eval()(images)
        assert outputs.class_logits.shape == (2, 30, 4)
        assert outputs.mask_logits.shape == (2, 30, 16, 24)


def bare(path, head, *, meta=None, without=(), **options):
    """A file as the official code of the head writes it, and the network in it."""
    model = create_model(f"{head}_{MINI}", **SMALL[head], **options).eval()
    layout = next(layout for layout in get_family(head).layout_tables if layout.name == FOREIGN[head])
    weights = {name: tensor for name, tensor in layout.write(model.state_dict()).items() if name not in without}
    content = {layout.wrapper: weights} if layout.wrapper else weights
    torch.save({**content, **({"meta": meta} if meta else {})}, path)
    return model


@pytest.mark.parametrize(
    ("head", "lost", "named"),
    [
        ("upernet", "decode_head.conv_seg.weight", "net.decode_head.classifier.weight"),
        ("upernet", "decode_head.conv_seg.bias", "net.decode_head.classifier.bias"),
        ("upernet", "auxiliary_head.conv_seg.weight", "net.auxiliary_head.classifier.weight"),
        ("upernet", "auxiliary_head.conv_seg.bias", "net.auxiliary_head.classifier.bias"),
        ("mask2former", "sem_seg_head.predictor.class_embed.weight", "net.class_predictor.weight"),
        ("mask2former", "sem_seg_head.predictor.class_embed.bias", "net.class_predictor.bias"),
        ("mask_rcnn", "roi_head.bbox_head.fc_reg.bias", "roi_heads.box_predictor.bbox_pred.bias"),
    ],
)
def test_a_file_that_lacks_a_class_parameter_is_refused(head, lost, named, tmp_path):
    bare(tmp_path / "w.pth", head, num_classes=4, without=(lost,))
    for options in ({}, {"num_classes": 4}, {"num_classes": 7}):
        with pytest.raises(UserError, match=re.escape(named)):
            create_model(weights=tmp_path / "w.pth", **options)


@pytest.mark.parametrize("head", ["upernet", "mask2former", "mask_rcnn"])
@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("norm2.weight", None),
        ("layers.2.blocks.1.modulation.focal_layers.0.0.weight", lambda kernel: torch.zeros(*kernel.shape[:2], 5, 5)),
        ("layers.2.blocks.1.modulation.focal_layers.1.0.weight", None),
        ("layers.1.downsample.proj.bias", None),
        ("layers.0.blocks.0.mlp.fc1.weight", lambda weight: weight[:-1]),
    ],
)
def test_a_backbone_of_a_whole_network_is_not_adapted(head, part, change, tmp_path):
    """A norm would start as identity, a kernel would be cut, a level would be random, as of classification weights."""
    bare(tmp_path / "w.pth", head, num_classes=4)
    content = torch.load(tmp_path / "w.pth")
    (weights,) = content.values()
    weights[f"backbone.{part}"] = change(weights[f"backbone.{part}"]) if change else None
    content[next(iter(content))] = {name: tensor for name, tensor in weights.items() if tensor is not None}
    torch.save(content, tmp_path / "w.pth")
    for options in ({}, {"num_classes": 7}, {"classes": "abcd"}):
        with pytest.raises(UserError, match=re.escape(part)):
            create_model(f"{head}_{MINI}", weights=tmp_path / "w.pth", **options)


def test_a_larger_model_does_not_take_a_whole_network(tmp_path):
    bare(tmp_path / "w.pth", "upernet", num_classes=4)
    model = create_model(f"upernet_{MINI}", num_classes=4, focal_windows=5, stem_padding=3, **SMALL["upernet"])
    with pytest.raises(
        UserError, match=r"of another shape \(net.backbone.trunk.layers.0.blocks.0.modulation.focal_layers"
    ):
        load_weights(model, tmp_path / "w.pth")


def test_kernels_that_grow_faster_are_read_off_the_file(tmp_path):
    model = bare(tmp_path / "w.pth", "upernet", num_classes=4, focal_factor=4)
    assert_same(model, create_model(weights=tmp_path / "w.pth"))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "changes",
    [
        {"depths": (1, 1, 1, 1)},
        {"embed_dim": 16, "depths": (1, 2, 1, 3), "mlp_ratio": 2.0},
        {"focal_levels": (1, 2, 3, 1), "layerscale_value": 1e-4, "use_postln_in_modulation": True},
    ],
)
def test_an_architecture_of_ones_own_is_read_off_a_file(head, changes, tmp_path, caplog):
    """Saved in the layout of the head's official code, which has no place for a description, and as our own names."""
    caplog.set_level(logging.INFO, logger="focalnet")
    model = bare(tmp_path / "w.pth", head, num_classes=3, **changes)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    for path in (tmp_path / "w.pth", tmp_path / "own.pth"):
        name = f"{head}_{MINI}"
        named = create_model(name, weights=path, **changes, **SMALL[head])
        again = create_model(weights=path, **SMALL[head], **UNSEEN.get(head, {}))
        assert_same(model, named)
        assert_same(model, again)
        for field, value in changes.items():
            assert getattr(named.spec.architecture, field) == getattr(again.spec.architecture, field) == value
        field = next(iter(changes))
        there, here = changes[field], getattr(VARIANTS[MINI], field)
        sentence = f"{path} has {field}={there}, {name} has {here}; take the name that fits the file, or leave it out"
        with pytest.raises(UserError, match=re.escape(sentence)):
            create_model(name, weights=path, **SMALL[head])
        sentence = f"{path} has {field}={there}, the call asks for {here}; leave the option out, or take weights that"
        with pytest.raises(UserError, match=re.escape(sentence)):
            create_model(name, weights=path, **{**changes, field: here}, **SMALL[head])
    assert "own.pth: of no known variant, read off its shapes; taken for a network with use_postln=" in caplog.text


def test_a_description_of_other_classes_than_the_file_has_is_refused(tmp_path):
    save_pretrained(small("upernet", classes=["ant", "bee"]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_classes": 7, "classes": None}))
    with pytest.raises(UserError, match="the description says num_classes=7, the tensors show 2"):
        create_model(weights=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "things": [True]}))
    with pytest.raises(UserError, match="`things` has 1 entries for 2 classes"):
        create_model(weights=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "head_options": {"chanels": 16}}))
    with pytest.raises(UserError, match="no option of upernet 'chanels'; did you mean 'channels'"):
        create_model(weights=tmp_path)


def test_what_no_shape_shows_must_agree(tmp_path):
    bare(tmp_path / "w.pth", "upernet", num_classes=4)  # mmsegmentation's padding is 3
    model = create_model(f"upernet_{MINI}", num_classes=4, **SMALL["upernet"])
    for other in (model, create_backbone(MINI)):
        with pytest.raises(
            UserError, match="a network with stem_padding=3, the model has stem_padding=2; build it with"
        ):
            load_weights(other, tmp_path / "w.pth")
    fitting = create_model(f"upernet_{MINI}", num_classes=4, stem_padding=3, **SMALL["upernet"])
    assert_same(load_weights(fitting, tmp_path / "w.pth"), create_model(weights=tmp_path / "w.pth"))
    save_pretrained(create_model(f"upernet_{MINI}", num_classes=4, normalize_modulator=True), tmp_path / "own")
    with pytest.raises(UserError, match="normalize_modulator=True, the model has normalize_modulator=False"):
        load_weights(create_model(f"upernet_{MINI}", num_classes=4), tmp_path / "own")
    torch.save(fitting.state_dict(), tmp_path / "bare.pth")  # tells nothing: the model's own padding counts
    assert load_weights(fitting, tmp_path / "bare.pth").spec.architecture.stem_padding == 3


def test_two_heads_of_different_classes_are_refused(tmp_path):
    bare(tmp_path / "w.pth", "upernet", num_classes=4)
    content = torch.load(tmp_path / "w.pth")
    content["state_dict"]["auxiliary_head.conv_seg.weight"] = torch.zeros(7, 8, 1, 1)
    torch.save(content, tmp_path / "w.pth")
    for options in ({}, {"num_classes": 7}, {"num_classes": 5}, {"classes": "abcd"}):
        with pytest.raises(
            UserError, match=r"1 of another shape \(net.auxiliary_head.classifier.weight \(7, 8, 1, 1\)"
        ):
            create_model(weights=tmp_path / "w.pth", **options)


@pytest.mark.parametrize(
    ("head", "unread"),
    [("mask2former", ("criterion.empty_weight",)), ("upernet", tuple(
        f"{part}.num_batches_tracked" for part in ("decode_head.bottleneck.bn", "decode_head.psp_modules.0.1.bn")
    ))],
)  # fmt: skip
def test_what_no_prediction_reads_may_be_missing(head, unread, tmp_path):
    model = bare(tmp_path / "w.pth", head, num_classes=4, without=unread)
    assert_same(model, create_model(weights=tmp_path / "w.pth"))
    other = create_model(weights=tmp_path / "w.pth", num_classes=9)
    own, others = model.state_dict(), other.state_dict()
    assert {name for name in own if own[name].shape != others[name].shape} == set(model.class_parameters())


@pytest.mark.parametrize(
    ("head", "classes", "size"),
    [
        ("upernet", 150, (512, 2048)), ("upernet", 7, (512, 2048)), ("upernet", 19, (1024, 2048)),
        ("mask2former", 133, (800, 1333)), ("mask2former", 150, (512, 2048)), ("mask_rcnn", 80, (800, 1333)),
    ],
)  # fmt: skip
def test_a_bare_file_sees_the_pictures_of_the_published_networks(head, classes, size, tmp_path):
    model = bare(tmp_path / "w.pth", head, num_classes=classes)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    for path in ("w.pth", "own.pth"):
        seen = create_model(weights=tmp_path / path).spec.preprocessing
        assert (seen.input_size, seen.long_side) == size


def test_the_weight_of_no_object_is_the_models(tmp_path):
    bare(tmp_path / "w.pth", "mask2former", num_classes=4)
    model = create_model(weights=tmp_path / "w.pth", no_object_weight=0.5)
    assert model.net.criterion.empty_weight.tolist() == [1, 1, 1, 1, 0.5]


def test_mask2former_of_large_nets_sees_larger_pictures_of_ade20k():
    large = get_family("mask2former").classes_of(150, VARIANTS["focalnet_large_fl4"])
    assert large["preprocessing"].input_size == 640
    assert large["preprocessing"].long_side == 2560


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_converted_file_keeps_what_its_layout_means(suffix, tmp_path):
    bare(tmp_path / "w.pth", "upernet", num_classes=4, meta={"CLASSES": tuple("abcd")})
    own = tmp_path / f"own.{suffix}"
    convert_file(tmp_path / "w.pth", own, to="focalnet")
    convert_file(own, tmp_path / "back.pth", to="mmseg")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first, *others = (
            create_model(weights=path)(images) for path in (tmp_path / "w.pth", own, tmp_path / "back.pth")
        )
    assert all(torch.equal(first.logits, other.logits) for other in others)
    for path in (own, tmp_path / "back.pth"):
        spec = create_model(weights=path).spec
        assert (spec.architecture.stem_padding, spec.classes) == (3, tuple("abcd"))


def test_a_part_is_not_converted(tmp_path):
    bare(tmp_path / "w.pth", "upernet", num_classes=4, without=("decode_head.conv_seg.bias",))
    with pytest.raises(UserError, match=r"net\.decode_head\.classifier\.bias is missing"):
        convert_file(tmp_path / "w.pth", tmp_path / "own.pth", to="focalnet")
    assert not (tmp_path / "own.pth").exists()


def test_the_padding_of_our_overlapped_names():
    assert parse_name("upernet_focalnet_tiny_srf_deeper").architecture.stem_padding == 3


def test_names_of_classes_come_out_of_the_file(tmp_path):
    names = tuple(f"kind {index}" for index in range(150))
    for number, meta in enumerate(({"CLASSES": names}, {"dataset_meta": {"classes": list(names)}})):
        path = tmp_path / f"{number}.pth"
        model = bare(path, "upernet", num_classes=150, meta=meta)
        again = create_model(weights=path)
        assert again.spec.classes == names
        assert_same(model, again)
        assert_same(model, create_model(weights=path, classes=names))
        other = create_model(weights=path, classes=[f"other {index}" for index in range(150)])
        assert not torch.equal(other.net.decode_head.classifier.weight, model.net.decode_head.classifier.weight)


def test_names_that_the_number_suggests_are_said_and_keep_the_head(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="focalnet")
    model = bare(tmp_path / "w.pth", "upernet", num_classes=150)
    assert create_model(weights=tmp_path / "w.pth").spec.classes == ADE20K_CLASSES
    assert "w.pth: 150 classes without names are taken for wall, building, sky, …; classes= says" in caplog.text
    own = [f"kind {index}" for index in range(150)]
    convert_file(tmp_path / "w.pth", tmp_path / "own.safetensors", to="focalnet")  # a guess stays one
    for path in (tmp_path / "w.pth", tmp_path / "own.safetensors"):
        again = create_model(weights=path, classes=own)
        assert again.spec.classes == tuple(own)
        assert_same(model, again)
        assert create_model(weights=path).spec.classes == ADE20K_CLASSES
    again = create_model(f"upernet_{MINI}", classes=own, stem_padding=3, **SMALL["upernet"])
    assert load_weights(again, tmp_path / "w.pth").spec.classes == tuple(own)


def test_things_go_with_their_names(tmp_path):
    bare(tmp_path / "w.pth", "mask2former", num_classes=133)
    assert sum(create_model(weights=tmp_path / "w.pth").spec.things) == 80
    for options in ({"num_classes": 5}, {"classes": [f"kind {i}" for i in range(133)]}):
        assert create_model(weights=tmp_path / "w.pth", **options).spec.things is None
    model = load_weights(
        create_model(f"mask2former_{MINI}", num_classes=133, **SMALL["mask2former"]), tmp_path / "w.pth"
    )
    assert (sum(model.spec.things), model.spec.task) == (80, "panoptic")


STRANGE = {
    "mask2former": {
        "sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.in_proj_weight": torch.zeros(2, 32),
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.attention_weights.bias": torch.zeros(()),
        "sem_seg_head.predictor.query_feat.weight": torch.zeros(7),
        "backbone.patch_embed.proj.weight": torch.zeros(3),
    },
    "mask_rcnn": {"roi_head.bbox_head.fc_cls.weight": None, "backbone.patch_embed.proj.weight": None},
}


@pytest.mark.parametrize(("head", "name"), [(head, name) for head, names in STRANGE.items() for name in names])
def test_strange_tensors_get_a_sentence(head, name, tmp_path):
    bare(tmp_path / "w.pth", head, num_classes=4)
    content = torch.load(tmp_path / "w.pth")
    (weights,) = content.values()
    weights[name] = STRANGE[head][name]
    content[next(iter(content))] = {name: tensor for name, tensor in weights.items() if tensor is not None}
    torch.save(content, tmp_path / "w.pth")
    for use in (
        lambda: create_model(weights=tmp_path / "w.pth"),
        lambda: create_model(f"{head}_{MINI}", weights=tmp_path / "w.pth"),
        lambda: convert_file(tmp_path / "w.pth", tmp_path / "x.pth", to=FOREIGN[head]),
    ):
        with pytest.raises(UserError) as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{not json", "[1]", '{"variant": "x"}', '{"architecture": 3}'])
def test_a_damaged_description_gets_a_sentence(text, tmp_path):
    model = small("upernet", num_classes=4)
    write_state_dict(tmp_path / "w.safetensors", model.state_dict(), metadata={"focalnet": text})
    for use in (create_model, load_model):
        with pytest.raises(UserError, match=r"the description in w\.safetensors(:| is damaged| is a list| lacks)"):
            use(**{"weights" if use is create_model else "model": tmp_path / "w.safetensors"})


# a family from outside the package


@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    """Options of a `Toy`."""

    width: int = 8
    """Channels between the backbone and the classes."""
    scale: float = 1.0
    """Of the logits."""


class Toy(Network):
    """The mean of the last map, two linear layers."""

    Options = ToyOptions
    backbone_prefix = "backbone."

    def __init__(self, architecture, *, num_classes, options=ToyOptions(), recompute="none"):
        super().__init__()
        self.options = options
        self.backbone = FocalNet(architecture, out_indices=[len(architecture.depths) - 1], recompute=recompute)
        self.middle = nn.Linear(self.backbone.channels[-1], options.width)
        self.fc = nn.Linear(options.width, num_classes)

    def class_parameters(self):
        return iter(("fc.weight", "fc.bias"))

    def forward(self, images, sizes=None):
        (features,) = self.backbone(images)
        return self.options.scale * self.fc(self.middle(features.mean((2, 3))))

    def loss(self, images, targets, sizes=None):
        return {"loss": nn.functional.cross_entropy(self(images), targets)}


def toy_facts(weights):
    return told(shape_of(weights, "fc.bias")[0], {"width": shape_of(weights, "middle.bias")[0]})


TOY = Renaming([("backbone.", "trunk."), ("middle.", "neck."), ("fc.", "head.linear.")], ours="a Toy", theirs="toyland")
TOY_LAYOUTS = (
    Layout(
        name="toyland", head="toy", backbone_prefix="backbone.", matches=has("trunk.", "neck."), read=TOY.read,
        write=TOY.write, facts=toy_facts,
    ),
    Layout(
        name="focalnet", head="toy", backbone_prefix="backbone.", matches=has("backbone.", "middle."), facts=toy_facts
    ),
)  # fmt: skip


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(registry, "_KNOWN", {})
    return registry.register(
        Family(
            name="toy", model=f"{__name__}:Toy", layouts=f"{__name__}:TOY_LAYOUTS", title="Toy", purpose="play",
            pipeline="image-classification", learns="class", tasks=("classify",), num_classes=5,
            preprocessing=Image(input_size=32), on=(On(variants="minifocal_.*", options={"width": 4}),),
            suffix=Suffix(pattern=r"_x(?P<scale>\d)", meaning="a scale"), published={"toy_minifocal_128_x3": "fun"},
            classes_of=lambda number, architecture: {"classes": tuple("vwxyz")} if number == 5 else {},
        )
    )  # fmt: skip


def test_a_family_from_outside_is_named_created_saved_loaded_and_converted(toy, tmp_path):
    assert list_models("toy*") == ["toy_minifocal_128_x3"]
    with pytest.raises(UserError, match="upernet_minifocal_128_x3: only toy has a scale; leave _x3 out"):
        create_model("upernet_minifocal_128_x3")
    with pytest.raises(UserError, match="no option of toy 'widht'; did you mean 'width'"):
        create_model("toy_minifocal_128", widht=3)
    model = create_model("toy_minifocal_128_x3", classes=["ant", "bee"], **TRUNK).eval()
    assert (model.options, model.spec.num_classes) == (ToyOptions(width=4, scale=3), 2)
    card = (save_pretrained(model, tmp_path / "toy") / "README.md").read_text()
    assert "# Toy on minifocal_128" in card
    assert "play, 2 classes" in card
    again = create_model(weights=tmp_path / "toy")
    assert again.spec == model.spec
    assert_same(model, again)
    convert_file(tmp_path / "toy", tmp_path / "theirs.pth", to="toyland")
    assert_same(model, load_weights(create_model(weights=tmp_path / "toy"), tmp_path / "theirs.pth"))
    theirs = torch.load(tmp_path / "theirs.pth")["model"]
    assert {name.split(".")[0] for name in theirs} == {"trunk", "neck", "head"}
    other = create_model(weights=tmp_path / "toy", classes=["cat", "dog", "cow"])
    assert torch.equal(other.middle.weight, model.middle.weight)
    assert other.fc.weight.shape == (3, 4)


def test_a_file_of_a_family_from_outside_is_read_off_its_shapes(toy, tmp_path):
    model = create_model("toy_minifocal_128", width=6, num_classes=5, **TRUNK)
    torch.save({"model": TOY.write(model.state_dict())}, tmp_path / "bare.pth")
    again = create_model(weights=tmp_path / "bare.pth")
    assert_same(model, again)
    assert (again.options.width, again.spec.classes, again.spec.preprocessing.input_size) == (6, tuple("vwxyz"), 32)
    classifier = create_model(MINI, num_classes=5, **TRUNK)
    write_state_dict(tmp_path / "c.pth", classifier.state_dict(), wrapper="model")
    started = create_model(f"toy_{MINI}", weights=tmp_path / "c.pth", **TRUNK)
    assert torch.equal(started.backbone.patch_embed.proj.weight, classifier.patch_embed.proj.weight)


def test_a_family_from_outside_predicts(toy, tmp_path):
    model = create_model("toy_minifocal_128_x3", classes=["ant", "bee"], **TRUNK).eval()
    save_pretrained(model, tmp_path / "toy")
    image = PIL.Image.fromarray(torch.randint(256, (40, 50, 3), dtype=torch.uint8).numpy())
    with torch.no_grad():
        logits = model(model.spec.preprocessing(image)[None])[0]
    said = focalnet.Predictor(tmp_path / "toy")(image)
    assert said.label == ("ant", "bee")[int(logits.argmax())]
    assert said.score == pytest.approx(float(logits.softmax(0).max()), rel=1e-5)


def test_a_family_from_outside_is_trained(toy, tmp_path):
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            shade = (200 * label + 5 * number,) * 3
            PIL.Image.new("RGB", (32, 32), shade).save(tmp_path / "data" / name / f"{number}.png")
    task = Classify(data=str(tmp_path / "data"), model="toy_minifocal_32", augment="none")
    config = TrainConfig(epochs=1, batch_size=4, workers=0, precision="fp32", warmup_epochs=0.0)
    run = train(task, config, tmp_path / "run")
    assert {row["epoch"] for row in run.rows()} == {1}
    assert focalnet.Predictor(tmp_path / "run")(tmp_path / "data" / "ant" / "0.png").label in ("ant", "bee")
