"""Named recipes: what the paper trained with, and what we train with. Each says what it costs and should give.

A recipe is a function from the name of a model to a `Recipe`: the options of task and training that it sets. The
command line shows them as the defaults of `focalnet train --recipe NAME`, so every one of them can be overridden.
"""

from collections.abc import Callable, Mapping

from focalnet.engine.recipes import classify, scenes
from focalnet.engine.recipes.base import Recipe
from focalnet.errors import unknown

RECIPES: Mapping[str, Callable[[str], Recipe]] = {
    function.__name__: function
    for function in (
        classify.digits, classify.finetune, classify.imagenet1k, classify.imagenet22k, classify.imagenet1k_from_22k,
        scenes.digit_scenes, scenes.finetune_detector, scenes.finetune_segmenter,
        scenes.coco_1x, scenes.coco_3x, scenes.dino_12ep, scenes.dino_36ep, scenes.objects365, scenes.coco_from_o365,
        scenes.ade20k, scenes.mask2former_coco, scenes.mask2former_ade20k,
    )
}  # fmt: skip


def get_recipe(name: str, model: str) -> Recipe:
    """The recipe called `name`, for the model called `model`.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name](model)


__all__ = ["RECIPES", "Recipe", "get_recipe"]
