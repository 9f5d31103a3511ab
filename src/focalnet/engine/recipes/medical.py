"""Medical images: the phantoms of organs, and what Focal-UNet was trained with."""

from focalnet.engine.recipes.base import Recipe, released


def organs(model: str) -> Recipe:
    """Phantoms of organs, made on the fly, on a laptop."""
    return Recipe(
        name="organs",
        tasks=("segment",),
        summary="Slices with eight organs of three greys, painted on the fly, with no download.",
        command="focalnet train --task segment --recipe organs --data organs --model focal_unet_minifocal_128",
        cost="about 4 minutes on 2 CPU cores",
        result="Dice 0.92 (docs/log.md)",
        task={"augment": "turns", "drop_path": 0.0, "dice": True, "image_size": 96},
        train={"epochs": 3, "batch_size": 8, "lr": 2e-3, "min_lr": 1e-5, "warmup_epochs": 0.2, "ema": 0.99,
               "weight_decay": 0.05, "clip_grad": 5.0, "workers": 1},
    )  # fmt: skip


def synapse(model: str) -> Recipe:
    """Synapse's CT slices of eight organs, 127 epochs (Focal-UNet's trainer.py)."""
    return Recipe(
        name="synapse",
        tasks=("segment",),
        summary="Focal-UNet's schedule for slices of CT: 127 epochs, seven cosines each twice as long, from weights of "
        "images.",
        command=f"focalnet train --task segment --recipe synapse --model {model} --data synapse/",
        cost="127 epochs of 2,211 slices: hours on one GPU",
        result="not published in numbers that can be checked",
        task={"weights": released(model), "augment": "slices", "drop_path": 0.2, "dice": True, "image_size": 224},
        train={"epochs": 127, "batch_size": 24, "lr": 1e-4, "min_lr": 0.0, "schedule": "restarts", "warmup_epochs": 0.0,
               "weight_decay": 0.01, "optimizer_options": {"betas": (0.5, 0.99)}, "clip_grad": 0.0, "workers": 1},
    )  # fmt: skip
