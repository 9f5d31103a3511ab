"""`focalnet embed` and `focalnet similar`."""

import sys
from pathlib import Path
from typing import Literal

import tyro

from focalnet.errors import UserError


def embed(
    images: tyro.conf.Positional[tuple[str, ...]],
    out: Path,
    model: str | None = None,
    weights: str | None = None,
    batch_size: int = 32,
    on_bad_image: Literal["fail", "skip"] = "fail",
    device: str | None = None,
) -> None:
    """Write images as vectors: what a network sees before its head.

    Args:
        images: Files, folders, globs, URLs, or - for a list on standard input.
        out: The file to write, .npz or .parquet: names and vectors, in the order of the images.
        model: A run folder, or the name of a network with --weights; without it, focalnet_tiny_lrf with its released
            weights.
        weights: "official", "timm", "transformers", a file or a hub id.
        batch_size: Images per forward pass, at most.
        on_bad_image: What cannot be read is named when all the others are written; the exit code is then 2, or 0 with
            "skip".
        device: Where to compute: cpu, cuda, cuda:1, mps or xpu; without it, the GPU if there is one.
    """
    from focalnet.embedding import Embedder
    from focalnet.embedding.files import open_writer
    from focalnet.inputs.files import find_files
    from focalnet.inputs.video import is_video
    from focalnet.predict.progress import Progress

    if model is None:
        model, weights = "focalnet_tiny_lrf", weights or "official"
    unreadable: dict[str, UserError] = {}
    found = find_files(images, "image", unreadable)
    for name in filter(is_video, found):
        unreadable[name] = UserError(f"{name} is a video; embeddings are of images.")
    sources = [(name, name) for name in found if name not in unreadable]
    total = len(sources) + len(unreadable)
    count = width = 0
    embedder = Embedder(model, weights=weights, device=device)
    with open_writer(out, embedder.about) as writer, Progress(len(sources)) as progress:
        for names, vectors in embedder.stream(sources, batch_size=batch_size, unreadable=unreadable):
            writer.add(names, vectors)
            count, width = count + len(names), vectors.shape[1]
            for name in names:
                progress.step(name)
        if not count:
            _tell(unreadable)
            raise UserError(f"None of the {total} images can be read; nothing is written.")
    print(f"{out}: images {count}, numbers of each {width}")
    _tell(unreadable)
    if unreadable and on_bad_image == "fail":
        raise UserError(
            f"{len(unreadable)} of {total} could not be read; the others are in {out}. With --on-bad-image skip this "
            "is no failure."
        )


def similar(
    query: tyro.conf.Positional[str],
    index: tyro.conf.Positional[Path | None] = None,
    top: int = 5,
    duplicates: float = 0.98,
    device: str | None = None,
) -> None:
    """Find the images that are most alike, by the cosine of their vectors.

    Args:
        query: An image; or a file of `focalnet embed` alone, whose pairs of images that are nearly the same are told.
        index: A file of `focalnet embed`, in which to look.
        top: How many images to tell.
        duplicates: The least cosine of a pair that is nearly the same.
        device: Where to compute: cpu, cuda, cuda:1, mps or xpu; without it, the GPU if there is one.
    """
    from focalnet.embedding import Embedder, Embeddings

    if top < 1:
        raise UserError(f"--top is {top}; give 1 or more.")
    if index is None:
        pairs = Embeddings.load(query).duplicates(duplicates)
        for one, other, cosine in pairs:
            print(f"{cosine:.4f}  {one}  {other}")
        print(f"pairs of images with a cosine of {duplicates} or more: {len(pairs)}", file=sys.stderr)
        return
    found = Embeddings.load(index)
    if query in found.names:
        vector = found.vectors[found.names.index(query)]
        rows = [row for row in found.nearest(vector, top + 1) if row[0] != query][:top]
    else:
        model, weights = found.about.get("model"), found.about.get("weights")
        if not isinstance(model, str):
            raise UserError(f"{index} does not tell which network made it; take one of its own images as the query.")
        _, vectors = next(Embedder(model, weights=weights, device=device).stream([(query, query)]))
        rows = found.nearest(vectors[0], top)
    for name, cosine in rows:
        print(f"{cosine:.4f}  {name}")


def _tell(unreadable: dict[str, UserError]) -> None:
    for error in unreadable.values():
        print(f"focalnet: {error}", file=sys.stderr)
