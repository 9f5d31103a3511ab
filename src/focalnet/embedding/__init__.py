"""Images as vectors: what a network sees before its head, to search, to cluster, to find duplicates.

    classifier      the mean of the normalized last map, what `forward_head` gives with `pre_logits`
    other networks  the mean of the last map of the FocalNet inside

A file of embeddings has one row per image, in the order in which they were given, and the network that made them.

    .npz            `names` (N,), `embeddings` (N, D), float32, `about`, JSON
    .parquet        columns `name` and `embedding`, a list of D float32; `about` in the metadata
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from focalnet._version import __version__
from focalnet.backbone import FocalNet
from focalnet.embedding import files
from focalnet.engine.devices import Device, find_device
from focalnet.errors import UserError
from focalnet.inputs.ahead import default_threads
from focalnet.inputs.streaming import Item, predicted
from focalnet.models.create import load_model
from focalnet.weights.sources import Source, located

BLOCK = 1024
"""Rows that are compared with all others at once."""


@dataclass(frozen=True)
class Embeddings:
    """Images as vectors.

    Attributes:
        names: of the images, in the order in which they were given.
        vectors: (N, D), float32.
        about: the network that made them: `model`, `weights`, `focalnet`.
    """

    names: Sequence[str]
    vectors: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Embeddings":
        """Those that `save` or `focalnet embed` wrote.

        Raises:
            UserError: the file is missing, or something else.
        """
        return cls(*files.read(Path(path)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them into a file, .npz or .parquet."""
        with files.open_writer(Path(path), self.about) as writer:
            writer.add(self.names, self.vectors)

    def nearest(self, vector: np.ndarray, top: int = 5) -> list[tuple[str, float]]:
        """Names of the nearest images and their cosines, best first.

        Args:
            vector: (D,).
            top: how many.

        Raises:
            UserError: the vector has another length.
        """
        if vector.shape != self.vectors.shape[1:]:
            raise UserError(f"the vector has the shape {vector.shape}, the embeddings {self.vectors.shape[1:]}.")
        cosines = self._unit() @ (vector / max(float(np.linalg.norm(vector)), 1e-12))
        return [(self.names[int(i)], float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:top]]

    def duplicates(self, least: float = 0.98) -> list[tuple[str, str, float]]:
        """Pairs of images whose cosine is `least` or more, and it, best first."""
        unit, found = self._unit(), []
        for start in range(0, len(unit), BLOCK):
            cosines = unit[start : start + BLOCK] @ unit.T
            rows, columns = np.nonzero(cosines >= least)
            found += [(row + start, column, cosines[row, column]) for row, column in zip(rows, columns, strict=True)]
        pairs = [(self.names[int(i)], self.names[int(j)], float(cosine)) for i, j, cosine in found if i < j]
        return sorted(pairs, key=lambda pair: -pair[2])

    def _unit(self) -> np.ndarray:
        return self.vectors / np.maximum(np.linalg.norm(self.vectors, axis=1, keepdims=True), 1e-12)


class Embedder:
    """A network that makes vectors of images.

    Args:
        model: a run folder, a model folder, a hub id, a name with `weights`, or a model of `create_model`.
        weights: as in `create_model`, where `model` is a name.
        device: where to compute; without it, the GPU if there is one.

    Raises:
        UserError: the network takes no images, or is not there.
    """

    def __init__(
        self, model: str | os.PathLike[str] | nn.Module, *, weights: Source | None = None, device: Device = None
    ) -> None:
        place = find_device(device)
        network: Any = model if isinstance(model, nn.Module) else load_model(os.fspath(model), weights)
        self.network, self.device = network.to(place).eval(), place
        self.input = network.spec.preprocessing
        if hasattr(network, "exported"):
            raise UserError("embeddings look into the network, and an exported file is closed; take what was exported.")
        if self.input.kind != "image":
            raise UserError(f"embeddings are of images, and this network takes {self.input.kind}.")
        told = None if isinstance(model, nn.Module) else os.fspath(model)
        place = os.path.abspath(told) if told and os.path.exists(told) else told
        source = located(os.fspath(weights)) if isinstance(weights, str | os.PathLike) else None
        self.about = {"model": place, "weights": source, "focalnet": __version__}

    def stream(
        self,
        sources: Iterable[tuple[str, Any]],
        *,
        batch_size: int = 32,
        unreadable: dict[str, UserError] | None = None,
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Names and vectors (B, D), batch by batch, in order; images are read ahead, four batches or so at most.

        Args:
            sources: names with what they stand for: whatever a `Predictor` takes.
            batch_size: images per forward pass, at most; only images of one size share one.
            unreadable: takes in, by its name, what cannot be read, and why.

        Raises:
            UserError: without `unreadable`, an image that cannot be read.
        """

        def read(source: Any) -> tuple[None, Tensor]:
            return None, self.input(self.input.read(source))

        def embed(batch: list[Item]) -> None:
            for item, vector in zip(batch, self._vectors(torch.stack([item.prepared for item in batch])), strict=True):
                item.prediction = vector

        items = predicted(
            sources, read, embed, batch_size=batch_size, threads=default_threads(), device=self.device,
            unreadable=unreadable,
        )  # fmt: skip
        while batch := list(itertools.islice(items, batch_size)):
            yield [item.tag for item in batch], np.stack([item.prediction for item in batch])

    def _vectors(self, images: Tensor) -> np.ndarray:
        weight = next(self.network.parameters())
        with torch.inference_mode():
            images = images.to(weight.device, weight.dtype)
            if hasattr(self.network, "forward_head"):
                vectors = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
            else:
                backbone = self.network if isinstance(self.network, FocalNet) else self.network.focalnet
                maps = backbone(images)[-1] if isinstance(backbone, FocalNet) else None
                last = backbone.forward_stages(images)[-1].movedim(-1, 1) if maps is None else maps
                vectors = last.mean(dim=(2, 3))
        return vectors.float().cpu().numpy()


def embed(
    model: str | os.PathLike[str] | nn.Module,
    sources: Iterable[Any],
    *,
    weights: Source | None = None,
    device: Device = None,
    batch_size: int = 32,
) -> Embeddings:
    """Vectors of images.

    Args:
        model, weights, device: as in `Embedder`.
        sources: paths, addresses, bytes, PIL images, arrays (H, W, 3), tensors (3, H, W).
        batch_size: images per forward pass, at most.

    Returns:
        the embeddings in the order of `sources`; what has no path is named by its number.

    Raises:
        UserError: an image that cannot be read, or a network that takes none.

    Example:
        >>> found = focalnet.embed("runs/flowers", sorted(Path("flowers").rglob("*.jpg")))
        >>> found.nearest(found.vectors[0])
    """
    embedder = Embedder(model, weights=weights, device=device)
    named = (
        (os.fspath(source) if isinstance(source, str | os.PathLike) else str(number), source)
        for number, source in enumerate(sources)
    )
    batches = list(embedder.stream(named, batch_size=batch_size))
    names = [name for batch, _ in batches for name in batch]
    vectors = np.concatenate([each for _, each in batches]) if batches else np.zeros((0, 0), np.float32)
    return Embeddings(names, vectors, embedder.about)
