import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.models.dino.layouts import LAYOUTS, check_scales
from focalnet.models.dino.model import Dino
from focalnet.variants import FocalNetConfig, get_variant

FOLDER = Path(__file__).parents[2] / "fixtures" / "dino"
_specification = importlib.util.spec_from_file_location("dino_make_weights", FOLDER / "make.py")
make = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(make)
REFERENCE = dict(np.load(FOLDER / "reference.npz"))
OFFICIAL, DETREX = LAYOUTS


def released(network: str) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the reference, heads shared where it shares them."""
    names = dict(row.split(" ", 1) for row in REFERENCE[f"{network}/keys"].tolist())
    shapes = {name: tuple(int(n) for n in text.strip("(),").split(",") if n) for name, text in names.items()}
    empty = {name: torch.empty(shape) for name, shape in shapes.items()}
    if network == "shared":
        for name in empty:
            for part in ("class", "bbox"):
                if f"{part}_embed." in name and "enc_out" not in name:
                    leaf = name.split("_embed.")[1].split(".", 1)[1]
                    empty[name] = empty[f"{part}_embed.0.{leaf}"]
    return make.draw(empty)


def meta(name: str, levels: int, num_classes: int = 91, **options) -> Dino:
    with torch.device("meta"):
        options = Dino.Options(num_feature_levels=levels, **options)
        return Dino(get_variant(name), num_classes=num_classes, options=options)


def hollow(model: Dino) -> dict[str, Tensor]:
    """Zeros of the model's shapes that take no memory."""
    return {name: torch.zeros(()).expand(x.shape) for name, x in model.state_dict().items()}


@pytest.mark.parametrize(("network", "layout"), [("shared", OFFICIAL), ("separate", OFFICIAL), ("detrex", DETREX)])
def test_a_released_file_is_seen_read_loaded_and_written_back(network, layout):
    weights = released(network)
    assert [x for x in LAYOUTS if x.matches(weights)] == [layout]
    read = layout.read(weights)
    facts = layout.facts(read)
    assert facts.num_classes == 7
    levels = 4 if network == "shared" else 5
    assert dict(facts.head_options) == {
        "num_feature_levels": levels, "num_queries": 40, "hidden_dim": 256, "ffn_dim": 64,
        "encoder_layers": 2, "decoder_layers": 3, "shared_heads": network == "shared",
        "spare_label": network != "detrex",
        **({"position_temperature": 10000.0, "position_offset": -0.5} if network == "detrex" else {}),
    }  # fmt: skip
    model = Dino(
        FocalNetConfig(**make.TRUNK), num_classes=facts.num_classes, options=Dino.Options(**facts.head_options)
    )
    model.load_state_dict(read)
    written = layout.write(model.state_dict())
    assert written.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(written[name], tensor), name


def test_predictions_of_detrex():
    read = DETREX.read(released("detrex"))
    facts = DETREX.facts(read)
    model = Dino(
        FocalNetConfig(**make.TRUNK), num_classes=facts.num_classes, options=Dino.Options(**facts.head_options)
    ).eval()
    model.load_state_dict(read)
    with torch.no_grad():
        outputs = model(make.batch()[0])
    for key, value in outputs._asdict().items():
        wanted = torch.from_numpy(REFERENCE[f"detrex/{key}"])
        assert wanted.std(1).min() > 0.01
        assert (value - wanted).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "levels", "millions"),
    [
        ("focalnet_large_fl3", 4, 227.6), ("focalnet_large_fl4", 5, 228.1),
        ("focalnet_huge_fl3", 4, 709.3), ("focalnet_huge_fl4", 5, 712.4),
    ],
)  # fmt: skip
def test_the_published_sizes(name, levels, millions):
    model = meta(name, levels)
    assert sum(x.numel() for x in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    file = hollow(model)
    assert OFFICIAL.matches(file)
    facts = OFFICIAL.facts(OFFICIAL.read(file))
    assert facts.num_classes == 91
    assert facts.architecture == {"stem_padding": 2}
    meta(name, levels=facts.head_options["num_feature_levels"]).load_state_dict(file, assign=True)
    names = {name for name in file if not name.startswith("backbone.")}
    assert sum("class_embed" in name for name in names) == 2 * (6 + 6 + 1)
    assert sum("bbox_embed" in name for name in names) == 6 * (6 + 6 + 1)
    assert file["label_enc.weight"].shape == (92, 256)
    backbone = {name.split(".")[2] for name in file if name.startswith("backbone.0.")}
    assert backbone == {"patch_embed", "layers", *(f"norm{stage}" for stage in range(5 - levels, 4))}


def test_detrex_has_eighty_classes_and_its_own_heads():
    model = meta("focalnet_large_fl4", 5, num_classes=80, shared_heads=False, spare_label=False)
    file = DETREX.write(hollow(model))
    assert file["class_embed.6.bias"].shape == file["transformer.decoder.class_embed.6.bias"].shape == (80,)
    assert file["neck.extra_convs.0.conv.weight"].shape == (256, 1536, 3, 3)
    assert not any("enc_out_" in name for name in file)
    facts = DETREX.facts(DETREX.read(file))
    assert facts.num_classes == 80
    assert facts.architecture == {"stem_padding": 2, "normalize_modulator": False}


def test_another_number_of_scales_is_refused():
    five = hollow(meta("focalnet_large_fl4", 5))
    check_scales(five, 5)
    with pytest.raises(UserError, match=r"DINO with 5 scales, the model has 4; build it with num_feature_levels=5\."):
        check_scales(five, 4)


@pytest.mark.parametrize(("layout", "network"), [(OFFICIAL, "shared"), (DETREX, "detrex")])
def test_a_name_without_counterpart_is_refused(layout, network):
    weights = released(network) | {"criterion.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 of \d+ names has no counterpart in DINO: criterion.weight"):
        layout.read(weights)


def test_half_a_file_is_refused():
    weights = released("shared")
    del weights["transformer.tgt_embed.weight"]
    with pytest.raises(UserError, match=r"not a whole DINO: transformer.tgt_embed.weight is missing"):
        OFFICIAL.facts(weights)
