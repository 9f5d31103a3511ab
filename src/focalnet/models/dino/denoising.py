"""Contrastive denoising: queries made of the true objects, shaken, to be restored or refused (DINO, section 3.3).

Per group, every object of an image gives two queries: a positive one, whose box is moved by less than its noise
scale and which is to give the object back, and a negative one, moved by one to two times as much, which is to say
"nothing". The labels of both are replaced at random with probability `label_noise` / 2. Queries of a group see each
other and the ordinary queries; ordinary queries see none of them, or they would copy the truth.

    group 0                      group 1
    [ n positives | n negatives ][ n positives | n negatives ] …      n: most objects of an image in the batch

Images with fewer objects have queries without content, whose target is "nothing".

There are `number` // n groups, at least one. The original doubles that below a `number` of 50.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from focalnet.models.detection.matching import Truth, centred
from focalnet.models.dino.transformer import inverse_sigmoid


@dataclass(frozen=True)
class Noise:
    """What is random in a batch of `count` shaken objects: 2 · groups copies of all N objects, one after the other.

    Attributes:
        flip: (count,), 0 to 1; below `label_noise` / 2 the label is replaced.
        labels: (count,), by this one.
        signs: (count, 4), -1 or 1: which way each side of the box moves.
        shifts: (count, 4), 0 to 1: how far; negatives go 1 farther.
    """

    flip: Tensor
    labels: Tensor
    signs: Tensor
    shifts: Tensor

    @classmethod
    def draw(cls, count: int, num_classes: int, device: torch.device) -> "Noise":
        return cls(
            flip=torch.rand(count, device=device),
            labels=torch.randint(num_classes, (count,), device=device),
            signs=torch.randint(2, (count, 4), device=device) * 2.0 - 1.0,
            shifts=torch.rand(count, 4, device=device),
        )


@dataclass(frozen=True)
class Denoising:
    """The queries of a batch; P = 2 · groups · n of them per image.

    Attributes:
        content: (B, P, C).
        places: (B, P, 4), boxes before the sigmoid.
        hidden: (P + Q, P + Q), True where a query must not see another one.
        groups: of queries.
        most: n.
    """

    content: Tensor
    places: Tensor
    hidden: Tensor
    groups: int
    most: int


def group_count(number: int, counts: list[int]) -> int:
    """Groups for a budget of `number` positive queries in the fullest image; 0 where no image has an object."""
    most = max(counts)
    return max(number // most, 1) if most and number else 0


def make_queries(
    truth: Truth, noise: Noise, embedding: nn.Embedding, *, groups: int, queries: int, label_noise: float,
    box_noise: float,
) -> Denoising:  # fmt: skip
    """Shaken queries.

    Args:
        truth: the objects.
        noise: of 2 · `groups` · N.
        embedding: of the labels, `label_enc`.
        groups: of queries.
        queries: Q, ordinary queries.
        label_noise: twice the probability that a label is replaced.
        box_noise: largest move of a side of a positive box, in half widths and heights.
    """
    copies, objects, most = 2 * groups, len(truth.labels), max(truth.counts)
    labels = torch.where(noise.flip < label_noise / 2, noise.labels, truth.labels.repeat(copies))
    centre, half = truth.boxes[:, :2].repeat(copies, 1), truth.boxes[:, 2:].repeat(copies, 1) / 2
    copy = torch.arange(copies, device=labels.device).repeat_interleave(objects)
    move = (noise.shifts + (copy % 2)[:, None]) * noise.signs * box_noise * half.repeat(1, 2)
    boxes = inverse_sigmoid(centred((torch.cat([centre - half, centre + half], 1) + move).clamp(0, 1)))

    images, places = truth.images.repeat(copies), truth.places.repeat(copies) + copy * most
    size = (len(truth.counts), copies * most)
    index = (images, places)
    embedded = embedding(labels)
    content = embedded.new_zeros(*size, embedded.shape[1]).index_put(index, embedded)
    return Denoising(
        content, boxes.new_zeros(*size, 4).index_put(index, boxes), hidden_queries(groups, 2 * most, queries, labels),
        groups, most,
    )  # fmt: skip


def hidden_queries(groups: int, group_size: int, queries: int, like: Tensor) -> Tensor:
    """(P + Q, P + Q), True where a query must not see another one: groups each other, the ordinary ones any group."""
    group = torch.arange(groups, device=like.device).repeat_interleave(group_size)
    group = torch.cat([group, group.new_full((queries,), -1)])
    return (group[:, None] != group) & (group >= 0)
