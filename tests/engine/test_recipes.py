"""The published recipes carry the published numbers, and every recipe fits its dataclasses."""

import pytest

from focalnet.engine.config import TrainConfig
from focalnet.engine.recipes import RECIPES, get_recipe
from focalnet.errors import UserError
from focalnet.models.registry import list_models
from focalnet.tasks import get_task


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_sets_existing_options_and_tells_its_story(name):
    recipe = get_recipe(name, "focalnet_small_lrf")
    assert recipe.name == name
    for task in recipe.tasks:
        get_task(task)(**recipe.task)
    TrainConfig(**recipe.train)
    for text in (recipe.summary, recipe.command, recipe.cost, recipe.result):
        assert text


@pytest.mark.parametrize(
    ("size", "drop_path"),
    [("tiny_srf", 0.2), ("small_lrf", 0.3), ("base_srf", 0.5), ("tiny_iso", 0.2), ("base_iso", 0.3)],
)
def test_imagenet1k_follows_table_18(size, drop_path):
    recipe = get_recipe("imagenet1k", f"focalnet_{size}")
    config = TrainConfig(**recipe.train)
    assert (config.epochs, config.batch_size, config.lr, config.min_lr, config.warmup_epochs) == (
        300,
        1024,
        1e-3,
        1e-5,
        20,
    )
    assert (config.weight_decay, config.clip_grad, config.ema) == (0.05, 5.0, 0.0)
    assert (recipe.task["drop_path"], recipe.task["mixing"], recipe.task["label_smoothing"]) == (
        drop_path,
        (0.8, 1.0),
        0.1,
    )


def test_imagenet22k_and_its_finetuning_follow_table_19():
    recipe = get_recipe("imagenet22k", "focalnet_large_fl4")
    config = TrainConfig(**recipe.train)
    assert (config.epochs, config.batch_size, config.lr, config.warmup_epochs) == (90, 4096, 1e-3, 5)
    assert recipe.task["drop_path"] == 0.2
    recipe = get_recipe("imagenet1k_from_22k", "focalnet_large_fl4")
    config = TrainConfig(**recipe.train)
    assert (config.epochs, config.lr, config.min_lr, config.warmup_epochs, config.weight_decay) == (
        30,
        3e-5,
        5e-6,
        0,
        1e-8,
    )
    assert (recipe.task["mixing"], recipe.task["drop_path"]) == ((0.0, 0.0), 0.3)


def test_the_detectors_of_table_7_share_a_schedule():
    recipe = get_recipe("atss_3x", "atss_focalnet_tiny_lrf")
    config = TrainConfig(**recipe.train)
    assert (config.epochs, config.schedule_options["milestones"], config.batch_size) == (36, (27, 33), 16)
    assert (config.lr, config.weight_decay, config.clip_grad, recipe.task["drop_path"]) == (1e-4, 0.05, 0.0, 0.3)
    assert recipe.result == "box AP 49.6 (paper, Table 7)"
    assert get_recipe("atss_3x", "atss_focalnet_base_lrf").result == "not published for this model"
    config = TrainConfig(**get_recipe("sparse_rcnn_3x", "sparse_rcnn_focalnet_tiny_lrf").train)
    assert (config.lr, config.weight_decay, config.clip_grad, config.precision) == (2.5e-5, 1e-4, 1.0, "fp32")
    assert config.optimizer_options == {"decay_all": True}


def test_every_variant_has_every_recipe():
    for model in list_models():
        for name in RECIPES:
            get_recipe(name, model)


def test_unknown_recipe_suggests():
    with pytest.raises(UserError, match="imagenet1k"):
        get_recipe("imagenet-1k", "focalnet_tiny_srf")


def test_a_model_that_was_never_released_starts_from_random_weights():
    assert get_recipe("finetune_detector", "mask_rcnn_minifocal_128").task["weights"] is None
    assert get_recipe("finetune", "focalnet_tiny_iso").task["weights"] is None  # its server was closed
    for name in ("mask_rcnn_focalnet_tiny_lrf", "dino_focalnet_large_fl4_5scale"):
        assert get_recipe("finetune_detector", name).task["weights"] == "official"
