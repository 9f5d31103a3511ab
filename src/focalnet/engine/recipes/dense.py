"""Detection and segmentation: digit scenes, fine-tuning, and what the paper trained with.

The published schedules are in steps; here they are in epochs of the named data set at the named batch. What our
optimizer does otherwise than mmdet's: biases are never decayed there only if their name has `norm`, here never.
"""

import re
from collections.abc import Mapping
from typing import Any

from focalnet.engine.recipes.base import FEW, Recipe, released
from focalnet.models import atss, cascade_mask_rcnn, sparse_rcnn
from focalnet.models.mask_rcnn import AP
from focalnet.models.registry import get_family, parse_name
from focalnet.models.upernet import MIOU

_DROP_PATH = {"tiny": (0.1, 0.3), "small": (0.2, 0.5), "base": (0.3, 0.5)}
"""Of Mask R-CNN, 1x and 3x (official configs)."""
_COCO_STEPS = 117_266 / 16
"""Steps per epoch of COCO train2017 without images without objects."""
_ADE_STEPS = 20_210 / 16
_MUON = {"optimizer": "muon", "precision": "bf16"}
_SMALL_SCENES: dict[str, dict[str, Any]] = {
    "mask_rcnn": {"epochs": 7, "batch_size": 8, "lr": 1e-3, "clip_grad": 5.0},
    "cascade_mask_rcnn": {"epochs": 3, "batch_size": 8, "lr": 1e-3, "clip_grad": 5.0},
    "dino": {"epochs": 9, "batch_size": 8, "lr": 5e-4, "clip_grad": 0.1},
    "atss": {"epochs": 6, "batch_size": 8, "lr": 1e-3, "clip_grad": 5.0},
    "sparse_rcnn": {"epochs": 5, "batch_size": 8, "warmup_epochs": 0.16, "lr": 2e-3, "clip_grad": 1.0,
                    "optimizer": "muon"},
    "upernet": {"epochs": 3, "batch_size": 16, "warmup_epochs": 0.16, "lr": 6e-3, "clip_grad": 5.0, **_MUON},
    "mask2former": {"epochs": 2, "batch_size": 8, "warmup_epochs": 0.16, "lr": 2e-3, "backbone_lr": 0.3,
                    "clip_grad": 1.0, **_MUON},
}  # fmt: skip
_SMALL_RESULTS = {  # cost and result
    "mask_rcnn": ("about 35 minutes on 2 CPU cores", "box AP50 0.93 and mask AP50 0.92, past 0.90 after 20 minutes"),
    "cascade_mask_rcnn": (
        "about 30 minutes on 2 CPU cores",
        "box AP50 0.86 and mask AP50 0.84 after 1,000 of its 1,500 steps",
    ),
    "dino": ("about 40 minutes on 2 CPU cores", "box AP50 0.87, past 0.80 after 22 minutes"),
    "atss": ("about 30 minutes on 2 CPU cores", "box AP50 0.83 after 2,000 of its 3,000 steps; no run has ended yet"),
    "sparse_rcnn": (
        "about 50 minutes of one CPU core",
        "box AP50 0.88 after 1,500 of its 2,500 steps, past 0.70 after 19 minutes",
    ),
    "upernet": ("11 to 21 minutes on 2 CPU cores", "mIoU 0.86"),
    "mask2former": ("7 to 13 minutes on 2 CPU cores", "PQ 0.70 from the backbone of a trained UPerNet"),
}


def _size(model: str) -> str:
    match = re.search(r"focalnet_((tiny|small|base)_[sl]rf)", model)
    return match[1] if match else ""


def _steps(*milestones: float) -> dict[str, Any]:
    """A learning rate that falls to a tenth at these epochs."""
    return {"schedule": "step", "schedule_options": {"milestones": milestones}}


def _head(model: str) -> str:
    head = parse_name(model).head
    return head if head in _SMALL_SCENES else "mask_rcnn"


def digit_scenes(model: str) -> Recipe:
    """Scenes of handwritten digits, made on the fly, on a laptop."""
    head = _head(model)
    cost, result = _SMALL_RESULTS[head]
    kind = get_family(head).tasks[0]
    return Recipe(
        name="digit_scenes",
        tasks=("detect", "segment", "panoptic"),
        summary="Scenes of real handwritten digits on textured ground, painted on the fly, with no download.",
        command=f"focalnet train --task {kind} --model {head}_minifocal_128"
        + (" --weights runs/regions" if head == "mask2former" else ""),
        cost=cost,
        result=result,
        task={"augment": "digit_scenes"} if kind == "detect" else {"augment": "digit_crops", "drop_path": 0.0},
        train={
            "min_lr": 1e-5, "warmup_epochs": 0.5, "ema": 0.99, "weight_decay": 0.05, "workers": 1,
            **_SMALL_SCENES[head],
        },
    )  # fmt: skip


def finetune_detector(model: str) -> Recipe:
    """Your own boxes or masks, from released weights."""
    return Recipe(
        name="finetune_detector",
        tasks=("detect",),
        summary="Your own COCO or YOLO data, the backbone (or all) from released weights.",
        command="focalnet train --data coco/ --model mask_rcnn_focalnet_tiny_lrf",
        cost="an hour on one GPU for some thousand images",
        result="depends on the images",
        task={"weights": released(model), "augment": "detr", "drop_path": 0.1},
        train={"epochs": 24, "batch_size": 8, "lr": 1e-4, "min_lr": 1e-6, "warmup_epochs": 0.5, "clip_grad": 1.0, **FEW,
               "backbone_lr": 0.1 if parse_name(model).head == "dino" else 1.0},
    )  # fmt: skip


def finetune_segmenter(model: str) -> Recipe:
    """Your own label maps, from released weights."""
    queries = parse_name(model).head == "mask2former"
    return Recipe(
        name="finetune_segmenter",
        tasks=("segment", "panoptic"),
        summary="Your own images with label maps, the backbone (or all) from released weights.",
        command="focalnet train --task segment --data ade/ --model upernet_focalnet_tiny_lrf",
        cost="an hour on one GPU for some thousand images",
        result="depends on the images",
        task={"weights": released(model), "augment": "semantic", "drop_path": 0.3},
        train={"epochs": 40, "batch_size": 8, "min_lr": 0.0, "schedule": "linear", "warmup_epochs": 1.0, **FEW,
               **({"lr": 1e-4, "backbone_lr": 0.1, "weight_decay": 0.05, "clip_grad": 0.01}
                  if queries else {"lr": 6e-5, "weight_decay": 0.01, "clip_grad": 1.0})},
    )  # fmt: skip


def scratch_detector(model: str) -> Recipe:
    """Your own boxes or masks, from random weights."""
    return _scratch(model, "scratch_detector", ("detect",), "Your own COCO or YOLO data, from random weights.",
                    "focalnet train --task detect --data coco/ --model small")  # fmt: skip


def scratch_segmenter(model: str) -> Recipe:
    """Your own label maps, from random weights."""
    return _scratch(model, "scratch_segmenter", ("segment", "panoptic"),
                    "Your own images with label maps, from random weights.",
                    "focalnet train --task segment --data ade/ --model small")  # fmt: skip


def _scratch(model: str, name: str, tasks: tuple[str, ...], summary: str, command: str) -> Recipe:
    small = "minifocal" in model
    rates = _SMALL_SCENES[_head(model)] if small else {"lr": 1e-4, "clip_grad": 0.1}
    return Recipe(
        name=name,
        tasks=tasks,
        summary=summary,
        command=command,
        cost="half an hour on 2 CPU cores for a small network, hours on one GPU for the others",
        result="depends on the images; released weights (--weights) need far fewer",
        task={"weights": None, "augment": "light", "drop_path": 0.0 if small else 0.1},
        train={"min_lr": 1e-5, "warmup_epochs": 0.5, "ema": 0.99, **rates, "precision": "auto", "batch_size": 8,
               "epochs": 40, **FEW, "least_total": 1500},
    )  # fmt: skip


def _coco(model: str, name: str, title: str, times: str, published: str | None, drop_path: float, **train) -> Recipe:
    """A schedule of mmdetection's, `times` of 12 epochs, with what a network trains otherwise."""
    epochs, drops, time = {"1x": (12, (9, 11), "hours"), "3x": (36, (27, 33), "a day or two")}[times]
    return Recipe(
        name=name,
        tasks=("detect",),
        summary=f"The paper's {title} {times} schedule on COCO 2017, from ImageNet-1K weights.",
        command=f"torchrun --nproc-per-node 8 -m focalnet train --recipe {name} --model {model} --data coco/",
        cost=f"{epochs} epochs of 117 thousand images: {time} on 8 GPUs",
        result=published or "not published for this model",
        task={"weights": released(model), "augment": "detr", "drop_path": drop_path},
        train={"epochs": epochs, "batch_size": 16, "lr": 1e-4, **_steps(*drops), "warmup_epochs": 500 / _COCO_STEPS,
               "weight_decay": 0.05, "clip_grad": 0.0, "workers": 4, **train},
    )  # fmt: skip


def _mask_rcnn(model: str, which: int) -> Recipe:
    size, times = _size(model), ("1x", "3x")[which]
    published = f"box / mask AP {AP[size][which]} (paper, Table 6)" if size in AP else None
    drop_path = _DROP_PATH.get(size[:-4], (0.2, 0.3))[which]
    return _coco(model, f"coco_{times}", "Mask R-CNN", times, published, drop_path)


def coco_1x(model: str) -> Recipe:
    """Mask R-CNN on COCO, 12 epochs (Table 6, official configs)."""
    return _mask_rcnn(model, 0)


def coco_3x(model: str) -> Recipe:
    """Mask R-CNN on COCO, 36 epochs (Table 6, official configs)."""
    return _mask_rcnn(model, 1)


def _table7(model: str, name: str, title: str, what: str, published: Mapping[str, Any], **train) -> Recipe:
    """What the paper's Table 7 was trained with; `published` is its column of `what`, for T alone."""
    figure = published.get(_size(model))
    return _coco(model, name, title, "3x", f"{what} {figure} (paper, Table 7)" if figure else None, 0.3, **train)


def atss_3x(model: str) -> Recipe:
    """ATSS on COCO, 36 epochs (Table 7, official configs)."""
    return _table7(model, "atss_3x", "ATSS", "box AP", atss.AP)


def cascade_3x(model: str) -> Recipe:
    """Cascade Mask R-CNN on COCO, 36 epochs (Table 7, official configs)."""
    return _table7(model, "cascade_3x", "Cascade Mask R-CNN", "box AP", cascade_mask_rcnn.AP)


def sparse_rcnn_3x(model: str) -> Recipe:
    """Sparse R-CNN on COCO, 36 epochs (Table 7, official configs): in float32, everything decays."""
    return _table7(
        model, "sparse_rcnn_3x", "Sparse R-CNN", "box AP", sparse_rcnn.AP,
        lr=2.5e-5, weight_decay=1e-4, optimizer_options={"decay_all": True}, clip_grad=1.0, precision="fp32",
    )  # fmt: skip


def _dino(model: str, name: str, summary: str, result: str, cost: str, task: dict, train: dict) -> Recipe:
    return Recipe(
        name=name,
        tasks=("detect",),
        summary=summary,
        command=f"torchrun --nproc-per-node 16 -m focalnet train --recipe {name} --model {model} --data coco/",
        cost=cost,
        result=result,
        task={"weights": released(model), "augment": "detr", "drop_path": 0.3, "recompute": "block", **task},
        train={"batch_size": 16, "lr": 1e-4, "backbone_lr": 0.1, "warmup_epochs": 0.0,
               "weight_decay": 1e-4, "clip_grad": 0.1, "workers": 4, **train},
    )  # fmt: skip


def dino_12ep(model: str) -> Recipe:
    """DINO on COCO, 12 epochs (FocalNet-DINO's configs)."""
    return _dino(
        model, "dino_12ep", "DINO on COCO 2017, 12 epochs, from ImageNet-22K weights.",
        "box AP 57.5 with large_fl3 and 4 scales, 58.5 with large_fl4 and 5 scales (detrex)", "days on 16 GPUs",
        {}, {"epochs": 12, **_steps(11)},
    )  # fmt: skip


def dino_36ep(model: str) -> Recipe:
    """DINO on COCO, 36 epochs (FocalNet-DINO's configs)."""
    return _dino(
        model, "dino_36ep", "DINO on COCO 2017, 36 epochs, from ImageNet-22K weights.",
        "box AP 58.3 with large_fl3 and 4 scales (detrex)", "a week on 16 GPUs", {}, {"epochs": 36, **_steps(33)},
    )  # fmt: skip


def objects365(model: str) -> Recipe:
    """DINO on Objects365, 26 epochs (Appendix A.4); COCO follows with `coco_from_o365`."""
    return _dino(
        model, "objects365", "DINO pre-trained on Objects365, 26 epochs, from ImageNet-22K weights.",
        "a start for coco_from_o365", "26 epochs of 1.7 million images: weeks on 64 GPUs",
        {}, {"epochs": 26, **_steps(24), "batch_size": 64},
    )  # fmt: skip


def coco_from_o365(model: str) -> Recipe:
    """DINO on COCO at 1200 x 2000 from Objects365 weights, 12 epochs (Appendix A.4)."""
    return _dino(
        model, "coco_from_o365", "DINO on COCO 2017 at up to 1200 x 2000 from Objects365 weights (--weights).",
        "box AP 63.5 with large_fl4 and 5 scales (released), 64.2 / 64.4 on val / test-dev with huge (paper, Table 11)",
        "days on 16 GPUs", {"augment": "hres", "image_size": 1200}, {"epochs": 12, **_steps(11), "lr": 6e-5},
    )  # fmt: skip


def ade20k(model: str) -> Recipe:
    """UPerNet on ADE20K, 160 thousand steps (Table 8, official configs)."""
    published = MIOU.get(_size(model))
    return Recipe(
        name="ade20k",
        tasks=("segment",),
        summary="The paper's UPerNet schedule on ADE20K, 160 thousand steps, from ImageNet-1K weights.",
        command=f"torchrun --nproc-per-node 8 -m focalnet train --recipe ade20k --model {model} --data ade/",
        cost="127 epochs of 20 thousand images: a day on 8 GPUs",
        result=f"mIoU {published}, single / multi-scale (paper, Table 8)" if published else "not published",
        task={"weights": released(model), "augment": "semantic", "drop_path": 0.3},
        train={"epochs": 127, "batch_size": 16, "lr": 6e-5, "min_lr": 0.0, "schedule": "linear",
               "warmup_epochs": 1500 / _ADE_STEPS, "weight_decay": 0.01, "clip_grad": 0.0, "workers": 4},
    )  # fmt: skip


def mask2former_coco(model: str) -> Recipe:
    """Mask2Former on COCO panoptic, 100 epochs (facebookresearch's Swin-L config; the paper's own is not published)."""
    return Recipe(
        name="mask2former_coco",
        tasks=("panoptic", "detect"),
        summary="Mask2Former on COCO panoptic, 100 epochs of large-scale jitter, from ImageNet weights.",
        command=f"torchrun --nproc-per-node 8 -m focalnet train --task panoptic --recipe mask2former_coco "
        f"--model {model} --data coco/",
        cost="100 epochs of 118 thousand images: days on 8 GPUs",
        result="PQ 57.9 with large_fl4 (paper)",
        task={"weights": released(model), "augment": "lsj", "drop_path": 0.3, "image_size": 800},
        train={"epochs": 100, "batch_size": 16, "lr": 1e-4, "backbone_lr": 0.1,
               **_steps(655_556 / 7375, 710_184 / 7375), "warmup_epochs": 0.0, "weight_decay": 0.05, "clip_grad": 0.01,
               "workers": 4},
    )  # fmt: skip


def mask2former_ade20k(model: str) -> Recipe:
    """Mask2Former on ADE20K, 160 thousand steps (facebookresearch's Swin-L config; the paper's is not published)."""
    return Recipe(
        name="mask2former_ade20k",
        tasks=("segment",),
        summary="Mask2Former on ADE20K, 160 thousand steps at 640 x 640, from ImageNet-22K weights.",
        command=f"torchrun --nproc-per-node 8 -m focalnet train --task segment --recipe mask2former_ade20k "
        f"--model {model} --data ade/",
        cost="127 epochs of 20 thousand images: a day or two on 8 GPUs",
        result="mIoU 57.3 / 58.5, single / multi-scale, with a large net of 3 focal levels (paper)",
        task={"weights": released(model), "augment": "semantic_steps", "drop_path": 0.3, "image_size": 640,
              "num_queries": 100},
        train={"epochs": 127, "batch_size": 16, "lr": 1e-4, "min_lr": 0.0, "backbone_lr": 0.1, "schedule": "poly",
               "warmup_epochs": 0.0, "weight_decay": 0.05, "clip_grad": 0.01, "workers": 4},
    )  # fmt: skip
