"""Our backbone under the heads of the installed transformers, each with a forward, a loss and a backward."""

import dataclasses

import pytest
import torch
import transformers
from transformers import AutoBackbone, AutoConfig

from focalnet.backbone import FocalNet
from focalnet.errors import UserError
from focalnet.models.transformers import FocalNetBackbone, FocalNetBackboneConfig
from focalnet.variants import FocalNetConfig, get_variant

SMALL = FocalNetConfig(embed_dim=8, depths=(1, 1, 1, 1), focal_levels=(2,), layerscale_value=0.5)


def small(**options) -> FocalNetBackboneConfig:
    return FocalNetBackboneConfig(architecture=dataclasses.asdict(SMALL), **options)


def test_maps_are_those_of_the_dense_backbone():
    model = AutoBackbone.from_config(small()).eval()
    assert isinstance(model, FocalNetBackbone)
    trunk = FocalNet(SMALL).eval()
    trunk.load_state_dict(model.trunk.state_dict(), strict=True)
    images = torch.randn(2, 3, 45, 67)
    maps = model(images).feature_maps
    assert [tuple(m.shape) for m in maps] == [(2, 8, 12, 17), (2, 16, 6, 9), (2, 32, 3, 5), (2, 64, 2, 3)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, trunk(images), strict=True))
    assert model.channels == [8, 16, 32, 64]
    assert model.forward_with_filtered_kwargs(images, output_attentions=True).hidden_states is None


def test_stages_are_chosen_by_name_or_number():
    by_name = AutoBackbone.from_config(small(out_features=["stage2", "stage4"])).eval()
    by_number = AutoBackbone.from_config(small(out_indices=[2, 4])).eval()
    assert by_name.out_indices == by_number.out_indices == [2, 4]
    assert by_number.out_features == ["stage2", "stage4"]
    assert by_name.channels == [16, 64]
    assert [m.shape[1] for m in by_name(torch.randn(1, 3, 32, 32)).feature_maps] == [16, 64]
    assert "norm0.weight" not in by_name.trunk.state_dict()


def test_a_variant_is_enough():
    config = FocalNetBackboneConfig(architecture="focalnet_small_lrf")
    assert config.focalnet == get_variant("focalnet_small_lrf")
    assert config.stage_names == ["stem", "stage1", "stage2", "stage3", "stage4"]
    with torch.device("meta"):
        assert AutoBackbone.from_config(config).channels == [96, 192, 384, 768]


def test_wrong_arguments_are_refused():
    with pytest.raises(UserError, match="focalnet_tiny"):
        FocalNetBackboneConfig(architecture="focalnet_tinny_lrf")
    with pytest.raises(UserError, match="embed_dim"):
        FocalNetBackboneConfig(architecture={**dataclasses.asdict(SMALL), "embed_dims": 3})
    with pytest.raises(UserError, match="not the stem"):
        small(out_indices=[0, 1])


def test_saved_and_loaded_again_it_is_the_same(tmp_path):
    model = AutoBackbone.from_config(small(out_indices=[1, 3])).eval()
    images = torch.randn(1, 3, 45, 67)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.model_type, config.focalnet, config.out_indices) == ("focalnet_pyramid", SMALL, [1, 3])
    again = FocalNetBackbone.from_pretrained(tmp_path).eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    pairs = zip(model(images).feature_maps, again(images).feature_maps, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_weights_that_a_folder_lacks_are_drawn(tmp_path):
    model = AutoBackbone.from_config(small(out_indices=[1]))
    model.save_pretrained(tmp_path)
    again = FocalNetBackbone.from_pretrained(tmp_path, out_indices=[1, 2])
    assert torch.equal(again.trunk.norm1.weight, torch.ones(16))
    assert torch.equal(again.trunk.patch_embed.proj.weight, model.trunk.patch_embed.proj.weight)


def test_a_head_in_a_folder_is_the_same(tmp_path):
    model = build("UperNet").eval()
    images = torch.randn(1, 3, 64, 64)
    model.save_pretrained(tmp_path)
    again = transformers.UperNetForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert torch.equal(again(images).logits, model(images).logits)


def test_the_initialisation_is_ours():
    torch.manual_seed(0)
    model = build("UperNet")
    weight = model.backbone.trunk.layers[3].blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(model.backbone.trunk.layers[0].blocks[0].gamma_1, torch.full((8,), 0.5))


BOXES = [
    {"class_labels": torch.tensor([1, 2]), "boxes": torch.tensor([[0.4, 0.5, 0.3, 0.2], [0.6, 0.3, 0.2, 0.2]])},
    {"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.6, 0.5]])},
]
MASKS = {
    "mask_labels": [torch.ones(2, 64, 64), torch.ones(1, 64, 64)],
    "class_labels": [torch.tensor([1, 2]), torch.tensor([0])],
}
DETR = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 9,
}  # fmt: skip
DAB = {**{name: value for name, value in DETR.items() if name != "d_model"}, "hidden_size": 32}
RT = {
    "d_model": 32, "encoder_hidden_dim": 32, "encoder_in_channels": [16, 32, 64], "decoder_in_channels": [32, 32, 32],
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_layers": 1, "decoder_layers": 2, "num_queries": 9, "num_denoising": 4, "feat_strides": [8, 16, 32],
    "out_indices": [2, 3, 4], "hidden_expansion": 0.5,
}  # fmt: skip
M2F = {
    "hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "dim_feedforward": 32, "num_queries": 9,
    "encoder_feedforward_dim": 32, "encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2,
    "train_num_points": 64,
}  # fmt: skip
DEFORMABLE = {**DETR, "num_feature_levels": 3, "out_indices": [2, 3, 4]}
HEADS = {
    "UperNet": ("UperNetForSemanticSegmentation", {"hidden_size": 16, "auxiliary_channels": 8,
                "auxiliary_in_channels": 32}),
    "Mask2Former": ("Mask2FormerForUniversalSegmentation", M2F),
    "MaskFormer": ("MaskFormerForInstanceSegmentation", {"fpn_feature_size": 32, "mask_feature_size": 32}),
    "Detr": ("DetrForObjectDetection", {**DETR, "out_indices": [4]}),
    "ConditionalDetr": ("ConditionalDetrForObjectDetection", {**DETR, "out_indices": [4]}),
    "DabDetr": ("DabDetrForObjectDetection", {**DAB, "out_indices": [4]}),
    "DeformableDetr": ("DeformableDetrForObjectDetection", DEFORMABLE),
    "RTDetr": ("RTDetrForObjectDetection", RT),
    "RTDetrV2": ("RTDetrV2ForObjectDetection", RT),
    "DFine": ("DFineForObjectDetection", RT),
    "Deimv2": ("Deimv2ForObjectDetection", RT),
    "GroundingDino": ("GroundingDinoForObjectDetection", DEFORMABLE),
}  # fmt: skip


def build(head: str) -> torch.nn.Module:
    name, options = HEADS[head]
    if not hasattr(transformers, name):
        pytest.skip(f"this transformers has no {name}")
    options = dict(options)
    backbone = small(out_indices=options.pop("out_indices", [1, 2, 3, 4]))
    if head == "MaskFormer":
        options["decoder_config"] = transformers.DetrConfig(**DETR, backbone_config=backbone)
    if head == "GroundingDino":
        options["text_config"] = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=1100
        )
    config = getattr(transformers, f"{head}Config")(backbone_config=backbone, num_labels=3, **options)
    return getattr(transformers, name)(config)


def arguments(head: str) -> dict:
    if head == "UperNet":
        return {"labels": torch.randint(0, 3, (2, 64, 64))}
    if head in ("Mask2Former", "MaskFormer"):
        return MASKS
    if head == "GroundingDino":
        words = torch.tensor([[101, 5, 1012, 7, 1012, 9, 1012, 102]] * 2)  # "a . b . c ." in the ids of BERT
        return {"input_ids": words, "labels": BOXES}
    return {"labels": BOXES}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_of_transformers_learns_on_it(head):
    torch.manual_seed(0)
    model = build(head)
    loss = model(torch.randn(2, 3, 64, 64), **arguments(head)).loss
    loss.backward()
    assert loss.isfinite()
    trunk = next(module for module in model.modules() if isinstance(module, FocalNet))
    last = trunk.layers[3].blocks[0].modulation.f.weight
    assert last.grad is not None
    assert last.grad.abs().sum() > 0


def test_our_mask2former_warns_of_nothing(monkeypatch):
    from focalnet.models.mask2former.model import Mask2Former

    heard = []
    logger = transformers.models.mask2former.configuration_mask2former.logger
    monkeypatch.setattr(logger, "warning_once", heard.append)
    options = Mask2Former.Options(num_queries=4, hidden_dim=32, encoder_layers=1, decoder_layers=2)
    Mask2Former(SMALL, num_classes=3, options=options)
    assert heard == []
    build("Mask2Former")
    assert "is not a supported model" in heard[0]
