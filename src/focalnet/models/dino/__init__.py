"""DINO, our own: multi-scale deformable attention, transformer, denoising, matching, loss, model."""

from collections.abc import Mapping
from typing import Any

from focalnet import inputs
from focalnet.inputs.image import WHOLE_IMAGE
from focalnet.labels import COCO_CLASSES, COCO_RAW_CLASSES
from focalnet.models.family import Family, On, Suffix, small_image
from focalnet.variants import FocalNetConfig
from focalnet.weights.hub import WeightsEntry


def _released(repo: str, name: str, num_classes: int) -> WeightsEntry:
    return WeightsEntry(
        name=name, variant="focalnet_large_fl4", source="official", licence="apache-2.0", size=2_740_000_000,
        url=f"https://huggingface.co/{repo}/resolve/main/{name}", repo=repo, num_classes=num_classes,
        preprocessing=inputs.Image(), normalize_modulator=True, head="dino",
    )  # fmt: skip


def _classes_of(num_classes: int, architecture: FocalNetConfig) -> Mapping[str, Any]:
    known = {len(names): {"classes": names} for names in (COCO_CLASSES, COCO_RAW_CLASSES)}
    return known.get(num_classes, {})


FAMILY = Family(
    name="dino",
    model="focalnet.models.dino.model:Dino",
    layouts="focalnet.models.dino.layouts:LAYOUTS",
    title="DINO",
    purpose="object detection",
    pipeline="object-detection",
    learns="boxes",
    tasks=("detect",),
    num_classes=91,
    free=("detections", "dn_number", "dn_label_noise", "dn_box_noise"),
    preprocessing=WHOLE_IMAGE,
    on=(
        On(
            variants="minifocal_.*",
            options={"hidden_dim": 128, "ffn_dim": 256, "heads": 4, "points": 2, "encoder_layers": 2,
                     "decoder_layers": 3, "num_queries": 60, "dn_number": 30, "dn_box_noise": 0.4},
            preprocessing=small_image(128),
        ),
    ),
    files=(
        _released(
            "microsoft/focalnet-large-fl4-dino-o365-cocoft", "focalnet_large_fl4_o365_finetuned_on_coco.pth", 91
        ),
        _released("microsoft/focalnet-large-fl4-dino-o365", "focalnet_large_fl4_pretrained_on_o365.pth", 366),
    ),
    suffix=Suffix(pattern=r"_(?P<num_feature_levels>\d)scale", meaning="a number of scales"),
    published={
        "dino_focalnet_large_fl3_4scale": "box AP 57.5 (12 epochs, detrex)",
        "dino_focalnet_large_fl4_5scale": "box AP 63.5 (Objects365 first)",
        "dino_focalnet_huge_fl3_4scale": None,
        "dino_focalnet_huge_fl4_5scale": "box AP 64.2 / 64.4 (Objects365 first, val / test-dev)",
    },
    classes_of=_classes_of,
)  # fmt: skip
