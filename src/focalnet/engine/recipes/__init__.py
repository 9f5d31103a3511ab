"""Named recipes: what the paper trained with, and what we train with. Each says what it costs and should give.

A recipe is a function from the name of a model to a `Recipe`: the options of task and training that it sets. The
command line shows them as the defaults of `focalnet train --recipe NAME`, so every one of them can be overridden.
"""

from collections.abc import Callable, Mapping

from focalnet.engine.recipes import classify, dense
from focalnet.engine.recipes.base import Recipe
from focalnet.errors import unknown

RECIPES: Mapping[str, Callable[[str], Recipe]] = {
    function.__name__: function
    for function in (
        classify.digits, classify.finetune, classify.imagenet1k, classify.imagenet22k, classify.imagenet1k_from_22k,
        dense.digit_scenes, dense.finetune_detector, dense.finetune_segmenter,
        dense.coco_1x, dense.coco_3x, dense.dino_12ep, dense.dino_36ep, dense.objects365, dense.coco_from_o365,
        dense.ade20k, dense.mask2former_coco, dense.mask2former_ade20k,
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
