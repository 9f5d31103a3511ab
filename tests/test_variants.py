"""The table of variants: one row of exact figures each (paper Tables 1 to 4, 14, 17; counts of the official code)."""

import dataclasses
import json
from dataclasses import FrozenInstanceError
from typing import NamedTuple

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.ops import focal_context
from focalnet.variants import VARIANTS, FocalNetConfig, get_variant, list_models


class Row(NamedTuple):
    parameters: int
    gflops: float
    """Multiply-adds at 224 in units of 1e9, from the official `flops()` or the paper's table."""
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    drop_path: float


def doubling(dim: int) -> tuple[int, ...]:
    return (dim, 2 * dim, 4 * dim, 8 * dim)


ROWS = {
    "focalnet_tiny_srf": Row(28_427_116, 4.413, doubling(96), (3, 5), 0.2),
    "focalnet_tiny_lrf": Row(28_647_928, 4.486, doubling(96), (3, 5, 7), 0.2),
    "focalnet_small_srf": Row(49_891_216, 8.613, doubling(96), (3, 5), 0.3),
    "focalnet_small_lrf": Row(50_342_440, 8.732, doubling(96), (3, 5, 7), 0.3),
    "focalnet_base_srf": Row(88_148_144, 15.261, doubling(128), (3, 5), 0.5),
    "focalnet_base_lrf": Row(88_749_768, 15.419, doubling(128), (3, 5, 7), 0.5),
    "focalnet_tiny_iso": Row(5_880_280, 1.112, (192,), (3, 5, 7), 0.2),
    "focalnet_small_iso": Row(22_376_344, 4.305, (384,), (3, 5, 7), 0.2),
    "focalnet_base_iso": Row(87_255_832, 16.934, (768,), (3, 5, 7), 0.3),
    "focalnet_large_fl3": Row(207_100_744, 34.8, doubling(192), (5, 7, 9), 0.5),
    "focalnet_large_fl4": Row(207_281_248, 34.9, doubling(192), (3, 5, 7, 9), 0.5),
    "focalnet_xlarge_fl3": Row(366_082_120, 61.5, doubling(256), (5, 7, 9), 0.5),
    "focalnet_xlarge_fl4": Row(366_322_784, 61.6, doubling(256), (3, 5, 7, 9), 0.5),
    "focalnet_huge_fl3": Row(686_564_424, 115.2, doubling(352), (3, 5, 7), 0.5),
    "focalnet_huge_fl4": Row(689_277_664, 115.9, doubling(352), (3, 5, 7, 9), 0.5),
    "focalnet_tiny_srf_overlap": Row(30_371_980, 4.413, doubling(96), (3, 5), 0.2),
    "focalnet_small_srf_overlap": Row(51_836_080, 8.613, doubling(96), (3, 5), 0.3),
    "focalnet_base_srf_overlap": Row(91_601_456, 15.261, doubling(128), (3, 5), 0.5),
    "focalnet_tiny_srf_deeper": Row(25_142_451, 4.0, doubling(64), (3, 5), 0.2),
    "focalnet_small_srf_deeper": Row(38_159_968, 6.4, doubling(64), (3, 5), 0.3),
    "focalnet_base_srf_deeper": Row(85_090_144, 14.3, doubling(96), (3, 5), 0.5),
    "minifocal_32": Row(492_884, 0.706, (32, 64, 128), (3, 5), 0.05),
    "minifocal_64": Row(6_451_702, 3.744, doubling(48), (3, 5), 0.1),
    "minifocal_128": Row(3_193_734, 0.425, doubling(32), (3, 5), 0.05),
}


def build(config: FocalNetConfig, **options) -> FocalNetClassifier:
    with torch.device("meta"):
        return FocalNetClassifier(config, **options).eval()


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def overlap_extra(config: FocalNetConfig, size: int = 224) -> float:
    """GFLOPs that the official `flops()` leaves out: it counts overlapped embeddings as if they were patches."""
    if not config.use_conv_embed:
        return 0.0
    extra = (size // 4) ** 2 * config.in_channels * config.embed_dim * (7**2 - 4**2)
    for before, after, stride in zip(config.channels, config.channels[1:], config.strides[1:], strict=False):
        extra += (size // stride) ** 2 * before * after * (3**2 - 2**2)
    return extra / 1e9


def test_every_variant_has_a_row():
    assert list(VARIANTS) == list(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_row(name):
    row, config = ROWS[name], VARIANTS[name]
    model = build(config)
    assert parameters(model) == row.parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 224, 224, device="meta"))
    # Table 3 gives 4.0 for 25.1 M; its count and the parameters agree only with overlapped embeddings (F0.7).
    gflops = counter.get_total_flops() / 2e9 - overlap_extra(config)
    digits = 0.05 if row.gflops in (4.0, 6.4, 14.3) else 0.0
    assert gflops == pytest.approx(row.gflops, rel=0.01, abs=digits)
    assert config.channels == row.channels
    assert config.strides == tuple(config.patch_size * 2**stage for stage in range(len(config.depths)))
    rates = [block.drop_path_rate for stage in model.layers for block in stage.blocks]
    step = row.drop_path / max(len(rates) - 1, 1)
    assert rates == pytest.approx([step * index for index in range(len(rates))])
    for stage in model.layers:
        for block in stage.blocks:
            assert tuple(layer[0].kernel_size[0] for layer in block.modulation.focal_layers) == row.kernels


@pytest.mark.parametrize(
    ("name", "changes", "options", "count"),
    [
        ("focalnet_large_fl3", {}, {"num_classes": 21842}, 239_134_898),
        ("focalnet_large_fl4", {}, {"num_classes": 0}, 205_744_248),
        ("focalnet_huge_fl4", {}, {"num_classes": 0}, 686_460_664),
        ("focalnet_base_iso", {"use_postln_in_modulation": False}, {}, 87_237_400),
        ("focalnet_tiny_srf", {"focal_levels": (0,)}, {}, 28_268_116),
        ("focalnet_tiny_srf", {"focal_levels": (1,)}, {}, 28_312_288),
        ("focalnet_tiny_srf", {"focal_levels": (4,)}, {}, 29_010_052),
        ("focalnet_tiny_srf", {"focal_levels": (1,), "focal_windows": (13,)}, {}, 29_018_848),
        (
            "focalnet_large_fl3",
            {"focal_levels": 2, "focal_windows": 3, "use_conv_embed": False, "layerscale_value": None},
            {},
            197_102_320,
        ),
    ],
)
def test_other_published_counts(name, changes, options, count):
    assert parameters(build(get_variant(name).replace(**changes), **options)) == count


def test_options_of_the_large_family():
    for name in list_models("*_fl?"):
        config = VARIANTS[name]
        assert config.use_conv_embed
        assert config.use_postln
        assert config.layerscale_value == 1e-4
        assert config.stem_padding == 2
        assert config.use_postln_in_modulation == ("huge" in name)
    assert get_variant("focalnet_large_fl4").normalize_modulator
    assert not get_variant("focalnet_large_fl3").normalize_modulator
    iso = get_variant("focalnet_base_iso")
    assert not iso.use_postln
    assert iso.layerscale_value == 1e-4


def test_the_table_is_frozen():
    with pytest.raises(TypeError):
        VARIANTS["mine"] = VARIANTS["focalnet_tiny_srf"]  # pyright: ignore[reportIndexIssue]
    with pytest.raises(FrozenInstanceError):
        VARIANTS["focalnet_tiny_srf"].embed_dim = 8  # pyright: ignore[reportAttributeAccessIssue]


def test_list_models():
    assert list_models("*tiny*lrf*") == ["focalnet_tiny_lrf"]
    assert list_models("nothing*") == []
    assert list_models() == list(VARIANTS)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match="no model 'focalnet_tiny_lfr'; did you mean 'focalnet_tiny_lrf'"):
        get_variant("focalnet_tiny_lfr")
    with pytest.raises(UserError, match="did you mean 'focal_levels'"):
        get_variant("focalnet_tiny_lrf").replace(focal_level=3)
    with pytest.raises(UserError, match="did you mean 'depths'"):
        FocalNetConfig.from_dict({"embed_dim": 8, "depth": (1,), "focal_levels": (1,)})


def test_one_number_stands_for_all_stages():
    config = FocalNetConfig(embed_dim=8, depths=(1, 1), focal_levels=(2,), focal_windows=(5,))
    assert config.focal_levels == (2, 2)
    assert config.focal_windows == (5, 5)
    assert config.replace(focal_windows=(9, 3)).focal_windows == (9, 3)
    assert config.focal_windows == (5, 5)


@pytest.mark.parametrize("name", ROWS)
def test_json_round_trip(name):
    config = VARIANTS[name]
    assert FocalNetConfig.from_dict(json.loads(config.to_json())) == config
    assert FocalNetConfig.from_dict(dataclasses.asdict(config)) == config
    assert hash(config) == hash(config.replace())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"focal_levels": (1, 2)}, "focal_levels=.* has 2 entries for 4 stages"),
        ({"focal_windows": (3, 3, 3)}, "focal_windows=.* has 3 entries for 4 stages"),
        ({"depths": ()}, "at least one block"),
        ({"depths": (2, 0, 2, 2)}, "at least one block"),
        ({"use_conv_embed": True, "patch_size": 16}, "set patch_size=4"),
        ({"drop_rate": 1.0}, "drop_rate=1.0; it is a probability"),
        ({"drop_path_rate": -0.1}, "drop_path_rate=-0.1"),
    ],
)
def test_bad_configs(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        get_variant("focalnet_tiny_srf").replace(**changes)


@pytest.mark.parametrize(
    ("name", "reach"), [("focalnet_tiny_srf", 7), ("focalnet_tiny_lrf", 13), ("focalnet_huge_fl4", 21)]
)
def test_receptive_fields(name, reach):
    """The last level of a modulation reaches 1 + Σ(k - 1) positions (paper, 3.2)."""
    sizes = ROWS[name].kernels
    assert 1 + sum(k - 1 for k in sizes) == reach
    context = torch.randn(1, 31, 31, 8, dtype=torch.float64, requires_grad=True)
    gates = torch.zeros(1, 31, 31, len(sizes) + 1, dtype=torch.float64)
    gates[..., len(sizes) - 1] = 1
    output = focal_context(context, gates, [torch.randn(8, 1, k, k, dtype=torch.float64) for k in sizes])
    (gradient,) = torch.autograd.grad(output[0, 15, 15].sum(), context)
    reached = gradient.abs().sum(-1)[0] > 0
    assert reached.any(0).sum() == reached.any(1).sum() == reach
