"""How a network reads the files of a data set, and what some of its samples tell before a run begins."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

import torch

from focalnet import inputs
from focalnet.data.base import Datasets, Load, MapDataset, Samples
from focalnet.errors import BadFileError
from focalnet.inputs.image import ChannelsError, pixels_of

Data = TypeVar("Data")

LOOKED_AT = 16
"""Samples whose images tell what to say of all."""
MEASURED = 256
"""Samples whose pixels give mean and std."""


def reading(data: Data, load: Load) -> Data:
    """`Samples`, or `Datasets` of them, whose files are decoded by `load`; other data as it is."""
    if isinstance(data, Datasets):
        return replace(data, train=reading(data.train, load), val=reading(data.val, load))
    if isinstance(data, Samples):
        data = copy.copy(data)
        data.load = load
    return data


def remarks(dataset: MapDataset, how: Any) -> list[str]:
    """What a user should know of how the images of a data set are read and seen, a sentence each.

    An image that cannot be read is met again, and told, where it is used.

    Raises:
        ChannelsError: no image looked at has as many channels as the network takes.
    """
    if not isinstance(how, inputs.Image):
        return []
    signals, strange = [], None
    for index in _spread(len(dataset), LOOKED_AT):
        try:
            signals.append(dataset[index].signal)
        except ChannelsError as error:
            strange = error
        except BadFileError:
            continue
    if strange and not signals:
        raise strange
    return how.remarks(signals)


def mean_and_std(dataset: MapDataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels of a data set, per channel, of 0 to 1; every image counts the same.

    Raises:
        BadImageError: an image that cannot be read.
    """
    moments = []
    for index in _spread(len(dataset), MEASURED):
        pixels = pixels_of(dataset[index].signal).flatten(1).double() / 255
        moments.append(torch.stack((pixels.mean(1), pixels.square().mean(1))))
    mean, square = torch.stack(moments).mean(0)
    std = (square - mean.square()).clamp(min=1e-6).sqrt()
    return tuple(round(value, 4) for value in mean.tolist()), tuple(round(value, 4) for value in std.tolist())


def _spread(length: int, most: int) -> Iterator[int]:
    """At most so many places of a data set, from its beginning to its end."""
    return iter(range(0, length, max(1, -(-length // most))))
