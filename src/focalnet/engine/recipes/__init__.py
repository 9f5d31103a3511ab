"""Named recipes: what the paper trained with, and what we train with. Each says what it costs and should give.

A recipe is a function from the name of a model to a `Recipe`: the options of task and training that it sets. The
command line shows them as the defaults of `focalnet train --recipe NAME`, so every one of them can be overridden. A
new one is a function in a module of this folder, or in a new module.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping

from focalnet.engine.recipes.base import Recipe
from focalnet.errors import unknown


def _recipes() -> Iterator[tuple[str, Callable[[str], Recipe]]]:
    """The public functions of every module of this folder but `base`, in their order."""
    for file in pkgutil.iter_modules(__path__):
        if file.name != "base":
            module = importlib.import_module(f"{__name__}.{file.name}")
            for name, function in vars(module).items():
                if inspect.isfunction(function) and function.__module__ == module.__name__ and name[0] != "_":
                    yield name, function


RECIPES: Mapping[str, Callable[[str], Recipe]] = dict(_recipes())


def get_recipe(name: str, model: str) -> Recipe:
    """The recipe called `name`, for the model called `model`.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name](model)


__all__ = ["RECIPES", "Recipe", "get_recipe"]
