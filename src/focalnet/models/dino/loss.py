"""DINO's loss: for every decoder layer, for the proposals of the encoder, and for the denoising queries of every layer

    1 · focal + 5 · L1 + 2 · (1 - GIoU),

each summed over the batch and divided by the number of objects, which is averaged over processes. Ordinary queries
are compared with the objects that `matching` gives them, denoising queries with those that they were made of.

The sets of predictions are stacked and computed together. The names of the terms are the official ones: `loss_ce`,
`loss_bbox`, `loss_giou` of the last layer, with `_0`, `_1`, … of the layers before it, `_interm` of the proposals, and
with `_dn` of denoising.

Legend: K sets of predictions, B batch, Q queries, N objects of the batch.
"""

import torch
from torch import Tensor

from focalnet.models.detection.losses import average_count
from focalnet.models.detection.matching import Pairs, Truth, match, set_losses
from focalnet.models.dino.denoising import Denoising

WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
"""Of the terms, in the total."""


def dino_losses(
    logits: Tensor, boxes: Tensor, proposal_logits: Tensor, proposal_boxes: Tensor, truth: Truth,
    denoising: Denoising | None,
) -> dict[str, Tensor]:  # fmt: skip
    """The terms, without gradient, and under "loss" their weighted sum.

    Args:
        logits: (layers, B, queries, classes) of all decoder layers; the denoising queries come first.
        boxes: (layers, B, queries, 4), cx, cy, w, h, 0 to 1.
        proposal_logits: (B, Q, classes) of the encoder's proposals.
        proposal_boxes: (B, Q, 4).
        truth: the objects.
        denoising: the queries for denoising, or None.
    """
    logits, boxes = logits.float(), boxes.float()
    normalizer = _objects(truth)
    split = denoising.content.shape[1] if denoising is not None else 0
    ordinary_logits = torch.cat([logits[:, :, split:], proposal_logits[None].float()])
    ordinary_boxes = torch.cat([boxes[:, :, split:], proposal_boxes[None].float()])
    pairs = match(ordinary_logits, ordinary_boxes, truth)
    layers = len(logits)
    names = [*(f"_{layer}" for layer in range(layers - 1)), "", "_interm"]
    terms = [set_losses(ordinary_logits, ordinary_boxes, pairs, truth) / normalizer]
    if denoising is not None:
        pairs = restored(denoising, truth, layers)
        shaken = set_losses(logits[:, :, :split], boxes[:, :, :split], pairs, truth)
        terms.append(shaken / (normalizer * denoising.groups))
        names += [f"_dn{name}" for name in names[:layers]]
    table = torch.cat(terms)
    losses = {"loss": (table.sum(0) * table.new_tensor(list(WEIGHTS.values()))).sum()}
    for name, row in zip(names, table.detach().unbind(), strict=True):
        losses.update((term + name, value) for term, value in zip(WEIGHTS, row.unbind(), strict=True))
    return losses


def restored(denoising: Denoising, truth: Truth, layers: int) -> Pairs:
    """The positive queries of every group and layer, and the objects that they were made of."""
    objects, device = len(truth.labels), truth.labels.device
    group = torch.arange(denoising.groups, device=device).repeat_interleave(objects)
    queries = truth.places.repeat(denoising.groups) + group * 2 * denoising.most
    sets = torch.arange(layers, device=device).repeat_interleave(len(queries))
    rows = torch.arange(objects, device=device).repeat(denoising.groups * layers)
    return Pairs(sets, queries.repeat(layers), rows)


def _objects(truth: Truth) -> Tensor:
    count = torch.tensor(float(len(truth.labels)), device=truth.labels.device)
    return average_count(count).clamp(min=1)
