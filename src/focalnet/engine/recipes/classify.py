"""Classification: the digits, fine-tuning, and what the paper trained with.

The numbers are those of the paper's Tables 18 and 19 where the paper and the code agree; where they do not (alpha of
cutmix: 0.8 in the paper, 1.0 in the code) the code's.
"""

from focalnet.engine.recipes.base import FEW, Recipe, released
from focalnet.models.classifier import TOP1
from focalnet.models.registry import parse_name


def digits(model: str) -> Recipe:
    """The handwritten digits inside scikit-learn, on a laptop."""
    return Recipe(
        name="digits",
        summary="1,797 real handwritten digits of 8x8 pixels, from random weights, with no download.",
        command="focalnet train",
        cost="about 2 minutes on 2 CPU cores",
        result="top-1 0.995 on the quarter that is never trained on (mean of three seeds, docs/log.md), "
        "where a support vector machine gets 0.989",
        task={"augment": "digits", "label_smoothing": 0.1},
        train={
            "epochs": 25,
            "batch_size": 64,
            "lr": 2e-3,
            "min_lr": 1e-5,
            "warmup_epochs": 3,
            "ema": 0.98,
            "workers": 1,
        },
    )


def digit_groups(model: str) -> Recipe:
    """Which of the handwritten digits are in a group of them, on a laptop."""
    return Recipe(
        name="digit_groups",
        tasks=("multilabel",),
        summary="3,500 groups of one to four handwritten digits, from random weights, with no download.",
        command="focalnet train --task multilabel",
        cost="about 2 minutes on one CPU core",
        result="mAP above 0.99 on 500 groups of digits that are never trained on (docs/data.md)",
        task={"augment": "none", "label_smoothing": 0.0},
        train={
            "epochs": 5,
            "batch_size": 32,
            "lr": 2e-3,
            "min_lr": 1e-5,
            "warmup_epochs": 1,
            "ema": 0.98,
            "workers": 0,
        },
    )


def finetune(model: str) -> Recipe:
    """A folder of images, from released weights."""
    return Recipe(
        name="finetune",
        tasks=("classify", "multilabel"),
        summary="Your own folder of images, from released weights.",
        command="focalnet train --data flowers/ --model focalnet_tiny_lrf",
        cost="minutes to an hour on one GPU for some thousand images",
        result="depends on the images",
        task={"weights": released(model), "augment": "light", "label_smoothing": 0.1, "drop_path": 0.1},
        train={"epochs": 30, "batch_size": 64, "lr": 1e-4, "min_lr": 1e-6, "warmup_epochs": 3, **FEW},
    )


def scratch(model: str) -> Recipe:
    """A folder of images, from random weights."""
    return Recipe(
        name="scratch",
        tasks=("classify", "multilabel"),
        summary="Your own folder of images, from random weights: where none are released, or none can be fetched.",
        command="focalnet train --data flowers/ --model small",
        cost="about 4 minutes on one CPU core for 216 images; of many images, an hour on one GPU for some ten thousand",
        result="top-1 0.955 on 200 held-out crops, of five classes with 173 in training (benchmarks/small_data.py)",
        task={"weights": None, "augment": "light", "label_smoothing": 0.0},
        train={"epochs": 22, "batch_size": 32, "lr": 5e-4, "min_lr": 1e-5, "warmup_epochs": 2, "ema": 0.98, **FEW},
    )


def imagenet1k(model: str) -> Recipe:
    """ImageNet-1K from random weights, 300 epochs (Table 18)."""
    top1 = TOP1.get(model)
    return Recipe(
        name="imagenet1k",
        summary="The paper's 300 epochs on ImageNet-1K, from random weights.",
        command=f"torchrun --nproc-per-node 8 -m focalnet train --recipe imagenet1k --model {model} --data imagenet/",
        cost="300 epochs of 1.28 million images: days on 8 GPUs",
        result=f"top-1 {top1} (paper)" if top1 else "not published for this variant",
        task={"weights": None, "augment": "imagenet", "mixing": (0.8, 1.0), "label_smoothing": 0.1,
              "drop_path": getattr(parse_name(model).architecture, "drop_path_rate", None)},
        train={"epochs": 300, "batch_size": 1024, "lr": 1e-3, "min_lr": 1e-5, "warmup_epochs": 20, "workers": 8},
    )  # fmt: skip


def imagenet22k(model: str) -> Recipe:
    """ImageNet-22K from random weights, 90 epochs (Table 19, Appendix A.3)."""
    return Recipe(
        name="imagenet22k",
        tasks=("classify", "multilabel"),
        summary="The paper's 90 epochs on ImageNet-22K, from random weights.",
        command=f"torchrun --nproc-per-node 32 -m focalnet train --recipe imagenet22k --model {model} --data shards/",
        cost="90 epochs of 14.2 million images: days on 32 GPUs",
        result="a start for imagenet1k_from_22k",
        task={"weights": None, "augment": "imagenet", "mixing": (0.8, 0.8), "label_smoothing": 0.1, "drop_path": 0.2},
        train={"epochs": 90, "batch_size": 4096, "lr": 1e-3, "min_lr": 1e-5, "warmup_epochs": 5, "workers": 8},
    )


def imagenet1k_from_22k(model: str) -> Recipe:
    """ImageNet-1K from ImageNet-22K weights, 30 epochs, at 224 or 384 (Table 19)."""
    return Recipe(
        name="imagenet1k_from_22k",
        summary="The paper's 30 epochs on ImageNet-1K from 22K weights; --image-size 224 or 384.",
        command=f"torchrun --nproc-per-node 8 -m focalnet train --recipe imagenet1k_from_22k --model {model} "
        "--weights runs/22k --image-size 384 --data imagenet/",
        cost="30 epochs of 1.28 million images",
        result="top-1 of B 85.6 at 224 and 86.5 at 384, of L 86.5 and 87.3 (paper, Table 4)",
        task={"weights": released(model), "augment": "imagenet", "mixing": (0.0, 0.0), "label_smoothing": 0.1,
              "drop_path": 0.3, "image_size": 224},
        train={"epochs": 30, "batch_size": 1024, "lr": 3e-5, "min_lr": 5e-6, "warmup_epochs": 0, "weight_decay": 1e-8,
               "workers": 8},
    )  # fmt: skip
