import functools
import itertools
import logging

import pytest
import torch
from torch import nn

from focalnet.backbone import FocalNet
from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.variants import VARIANTS, FocalNetConfig, get_variant
from focalnet.weights.architecture import infer_architecture, infer_variant, match_variant
from focalnet.weights.layouts import LAYOUTS, convert_state_dict, detect_layout, stored_use_postln

SMALL = FocalNetConfig(embed_dim=8, depths=(1, 2, 1), focal_levels=(2, 3, 1), focal_windows=(3, 5, 3))
FLAGS = [
    dict(zip(("use_conv_embed", "use_postln", "use_postln_in_modulation", "layerscale_value"), flags, strict=True))
    for flags in itertools.product((False, True), (False, True), (False, True), (None, 1e-4))
]


def weights_of(config: FocalNetConfig, num_classes: int = 5) -> dict[str, torch.Tensor]:
    return FocalNetClassifier(config, num_classes=num_classes).state_dict()


@functools.cache
def on_meta(name: str, num_classes: int = 1000) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return FocalNetClassifier(get_variant(name), num_classes=num_classes).state_dict()


def same_bytes(one: dict, other: dict) -> bool:
    def raw(tensor: torch.Tensor) -> bytes:
        return tensor.contiguous().numpy().tobytes()

    return list(one) == list(other) and all(
        one[key].shape == other[key].shape and raw(one[key]) == raw(other[key]) for key in one
    )


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_there_and_back_gives_the_same_bytes(flags):
    official = weights_of(SMALL.replace(**flags))
    files = {to: convert_state_dict(official, to=to, use_postln=flags["use_postln"]) for to in LAYOUTS}
    for source, target in itertools.permutations(LAYOUTS, 2):
        assert detect_layout(files[source]) == source
        there = convert_state_dict(files[source], to=target, use_postln=flags["use_postln"])
        assert same_bytes(there, files[target])
        assert same_bytes(convert_state_dict(there, to=source, use_postln=flags["use_postln"]), files[source])


def test_not_a_number_and_half_precision_keep_their_bits():
    official = {key: value.half() for key, value in weights_of(SMALL).items()}
    official["norm.weight"][0] = float("nan")
    back = convert_state_dict(convert_state_dict(official, to="timm", use_postln=False), to="official")
    assert same_bytes(back, official)


def test_every_timm_model_has_exactly_the_converted_names_and_shapes():
    timm = pytest.importorskip("timm")
    names = timm.list_models("focalnet*")
    assert len(names) == 12
    for name in names:
        with torch.device("meta"):
            theirs = timm.create_model(name, num_classes=1000).state_dict()
        ours = convert_state_dict(on_meta(name), to="timm")
        assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_every_variant_has_the_names_and_shapes_of_transformers():
    transformers = pytest.importorskip("transformers")
    for name, full in VARIANTS.items():
        config = full.replace(depths=[1] * len(full.depths))
        theirs = transformers.FocalNetConfig(
            embed_dim=config.embed_dim, depths=list(config.depths), focal_levels=list(config.focal_levels),
            focal_windows=list(config.focal_windows), hidden_sizes=list(config.channels), num_labels=1000,
            patch_size=config.patch_size, use_conv_embed=config.use_conv_embed,
            use_layerscale=config.layerscale_value is not None, use_post_layernorm=config.use_postln,
            use_post_layernorm_in_modulation=config.use_postln_in_modulation,
        )  # fmt: skip
        with torch.device("meta"):
            expected = transformers.FocalNetForImageClassification(theirs).state_dict()
            ours = convert_state_dict(weights_of(config, num_classes=1000), to="transformers")
        assert {key: value.shape for key, value in ours.items()} == {key: v.shape for key, v in expected.items()}, name


def test_transformers_files_without_prefix_and_of_masked_image_modelling(caplog):
    official = weights_of(SMALL)
    full = convert_state_dict(official, to="transformers")
    bare = {key.removeprefix("focalnet."): value for key, value in full.items() if not key.startswith("classifier")}
    trunk = {key: value for key, value in official.items() if not key.startswith("head")}
    assert detect_layout(bare) == "transformers"
    assert same_bytes(convert_state_dict(bare, to="official"), trunk)

    masked = {key: value for key, value in full.items() if not key.startswith("classifier")}
    masked |= {"focalnet.embeddings.mask_token": torch.zeros(1, 1, 8), "decoder.0.weight": torch.zeros(1)}
    with caplog.at_level(logging.INFO, logger="focalnet"):
        assert same_bytes(convert_state_dict(masked, to="official"), trunk)
    assert "focalnet.embeddings.mask_token, decoder.0.weight" in caplog.text


def test_timm_names_tell_where_the_norms_stand():
    for use_postln in (False, True):
        official = weights_of(SMALL.replace(use_postln=use_postln))
        assert stored_use_postln(official) is None
        assert stored_use_postln(convert_state_dict(official, to="timm", use_postln=use_postln)) is use_postln


def test_writing_timm_recognises_known_variants_and_asks_for_others():
    assert "layers.0.blocks.0.norm1_post.weight" in convert_state_dict(on_meta("focalnet_huge_fl4"), to="timm")
    assert "layers.0.blocks.0.norm1.weight" in convert_state_dict(on_meta("focalnet_base_lrf"), to="timm")
    with pytest.raises(UserError, match="use_postln=True or False"):
        convert_state_dict(weights_of(SMALL), to="timm")


def test_names_without_counterpart_are_listed():
    official = weights_of(SMALL) | {"layers.0.blocks.0.attention.qkv.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 of \d+ names .* transformers layout: layers.0.blocks.0.attention.qkv"):
        convert_state_dict(official, to="transformers")
    with pytest.raises(UserError, match=r"norm0\.weight"):
        convert_state_dict(FocalNet(SMALL, out_indices=(0, 1, 2)).state_dict(), to="timm", use_postln=False)


@pytest.mark.parametrize(
    "keys", [[], ["conv1.weight"], ["patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"]]
)
def test_other_networks_are_no_focalnet(keys):
    with pytest.raises(UserError, match="no weights of a FocalNet"):
        detect_layout(keys)


def test_unknown_layout():
    with pytest.raises(UserError, match="did you mean 'timm'"):
        convert_state_dict(weights_of(SMALL), to="tim")  # type: ignore[arg-type]


def test_every_variant_is_recognised_by_its_shapes():
    for name, config in VARIANTS.items():
        assert infer_variant(on_meta(name)) == name
        assert match_variant(config.replace(drop_path_rate=0.4, use_postln=True)) == name
    assert infer_variant(weights_of(SMALL)) is None


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_architecture_is_read_from_the_shapes(flags):
    config = SMALL.replace(**flags).replace(in_channels=4, mlp_ratio=2.0, use_postln=False)
    assert infer_architecture(weights_of(config)) == config


def test_architecture_without_levels_and_of_a_broken_file():
    none = FocalNetConfig(embed_dim=8, depths=(1, 1), focal_levels=(0,), patch_size=2)
    assert infer_architecture(weights_of(none)) == none
    broken = weights_of(SMALL)
    del broken["layers.0.blocks.0.mlp.fc1.weight"]
    with pytest.raises(UserError, match=r"not a whole FocalNet: layers.0.blocks.0.mlp.fc1.weight is missing"):
        infer_architecture(broken)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("layers.9999999.blocks.0.x", "layers.3"),
        ("layers.0.blocks.70000000000.x", "layers.0.blocks.1"),
        ("layers.1.blocks.0.modulation.focal_layers.4.0.weight", "layers.1.blocks.0.modulation.focal_layers.3"),
    ],
)
def test_numbered_parts_with_a_gap_are_refused(name, missing):
    with pytest.raises(UserError, match=rf"not a whole network: {missing} is missing\."):
        infer_architecture(weights_of(SMALL) | {name: torch.zeros(1)})


def test_conversion_shares_the_tensors():
    model: nn.Module = FocalNetClassifier(SMALL, num_classes=5)
    converted = convert_state_dict(model.state_dict(), to="transformers")
    assert converted["classifier.weight"].data_ptr() == model.state_dict()["head.weight"].data_ptr()
