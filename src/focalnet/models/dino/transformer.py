"""DINO's transformer (Zhang et al., "DINO: DETR with Improved DeNoising Anchor Boxes", ICLR 2023).

    encoder     tokens of all maps attend to points around themselves          deformable attention, 6 layers
    selection   every token proposes a box; the best Q become queries          mixed query selection
    decoder     queries attend to each other and to points in their boxes      6 layers, each moves the boxes

*Mixed query selection*: the place of a query is the box of a selected token, its content a learned vector
(`tgt_embed`).

*Look forward twice*: layer i is given the box of layer i - 1 without gradient, so that training stays stable, but
its prediction adds to that same box *with* gradient; the loss of layer i thus trains the box of layer i - 1 too.

A batch may hold images of several sizes, padded on the right and at the bottom. Places are then counted from 0 to 1
across the image, not across the padded map, and padded tokens have no value. One thing still sees the padding, as in
the original: the sine embedding of the queries' boxes, which is in units of the padded map.

What differs from the original: tokens stay (B, S, C); the boxes and class scores of the proposals are computed with
gradient for the selected tokens only, which are the only ones that the loss sees; a map of fewer tokens than queries
gives fewer queries.

Legend: B batch, S tokens of all maps in a row, L maps (levels), Q queries, C channels.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from focalnet.backbone import Recompute
from focalnet.models.detection.deformable import DeformableAttention, Shapes


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """log(x / (1 - x)), both sides at least `eps`."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def sine_embedding(x: Tensor, features: int, temperature: float) -> Tensor:
    """Sines and cosines of a place, in turns.

    Args:
        x: any shape (*S), 0 to 1.
        features: F, even.
        temperature: the longest wave over the shortest one.

    Returns:
        (*S, F).
    """
    exponents = torch.arange(features // 2, dtype=torch.float32, device=x.device) * (2 / features)
    angles = (2 * math.pi * x)[..., None] / temperature**exponents
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


class Mlp(nn.Module):
    """Linear layers with ReLU between them (official `MLP`)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(one, other) for one, other in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


@dataclass(frozen=True)
class Pyramid:
    """Where the tokens of a batch of maps lie. B' is 1 where every image fills its map, else B.

    Attributes:
        shapes: of the L maps.
        extents: (B', L, 2), columns and rows that are image.
        padding: (B, S), True where a token is no image; None where every image fills its map.
    """

    shapes: Shapes
    extents: Tensor
    padding: Tensor | None

    @classmethod
    def of(cls, maps: Sequence[Tensor], image_size: tuple[int, int], sizes: Tensor | None) -> "Pyramid":
        """Of maps (B, C, h, w) of images padded to `image_size`; `sizes` (B, 2), their valid height and width.

        A position is image if the pixel is that nearest interpolation of the image's mask takes, as in the
        original.
        """
        shapes = [(x.shape[2], x.shape[3]) for x in maps]
        device = maps[0].device
        if sizes is None:
            return cls(shapes, torch.tensor([[[w, h] for h, w in shapes]], dtype=torch.float32, device=device), None)
        extents, padding = [], []
        for height, width in shapes:
            rows = torch.arange(height, device=device) * image_size[0] // height < sizes[:, :1]
            columns = torch.arange(width, device=device) * image_size[1] // width < sizes[:, 1:]
            extents.append(torch.stack([columns.sum(1), rows.sum(1)], 1))
            padding.append(~(rows[:, :, None] & columns[:, None]).flatten(1))
        return cls(shapes, torch.stack(extents, 1).float(), torch.cat(padding, 1))

    def ratios(self) -> Tensor:
        """(B', L, 2): image over padded map, in x and y."""
        return self.extents / self.extents.new_tensor([[w, h] for h, w in self.shapes])

    def centres(self) -> Tensor:
        """(B', S, 2): the middle of each token, x and y, 0 to 1 across the image."""
        grids = []
        for level, (height, width) in enumerate(self.shapes):
            x, y = (torch.arange(n, device=self.extents.device) + 0.5 for n in (width, height))
            grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).flatten(0, 1)
            grids.append(grid / self.extents[:, level, None])
        return torch.cat(grids, 1)

    def positions(self, dim: int, temperature: float, offset: float) -> list[Tensor]:
        """Per map the sine embedding of its rows, then columns, (B', h · w, dim)."""
        result = []
        for level, (height, width) in enumerate(self.shapes):
            parts = []
            for count, end in ((width, self.extents[:, level, :1]), (height, self.extents[:, level, 1:])):
                places = torch.arange(1, count + 1, device=end.device).minimum(end)
                parts.append(sine_embedding((places + offset) / (end + 1e-6), dim // 2, temperature))
            size = (self.extents.shape[0], height, width, dim // 2)
            columns, rows = parts[0][:, None].expand(size), parts[1][:, :, None].expand(size)
            result.append(torch.cat([rows, columns], -1).flatten(1, 2))
        return result


class EncoderLayer(nn.Module):
    """Deformable self-attention and MLP, each followed by addition and norm."""

    def __init__(self, dim: int, ffn_dim: int, *, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, levels=levels, heads=heads, points=points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, shapes: Shapes, padding: Tensor | None) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        x = self.norm1(x + self.self_attn(x + position, reference, x, shapes, padding))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DecoderLayer(nn.Module):
    """Attention among queries, deformable attention to the tokens, MLP; the norms are numbered as in the original."""

    def __init__(self, dim: int, ffn_dim: int, *, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.cross_attn = DeformableAttention(dim, levels=levels, heads=heads, points=points)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, position: Tensor, reference: Tensor, memory: Tensor, shapes: Shapes, padding: Tensor | None,
        hidden: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """(B, Q, C) -> (B, Q, C); `hidden` (Q, Q) is True where a query must not see another one."""
        place = x + position
        x = self.norm2(x + self.self_attn(place, place, x, attn_mask=hidden, need_weights=False)[0])
        x = self.norm1(x + self.cross_attn(x + position, reference, memory, shapes, padding))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class Encoder(nn.Module):
    """A row of `EncoderLayer`."""

    def __init__(self, count: int, dim: int, ffn_dim: int, **options: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, ffn_dim, **options) for _ in range(count))


class Decoder(nn.Module):
    """A row of `DecoderLayer`; the heads for boxes and classes belong to the model and hang here too, by their name."""

    bbox_embed: nn.ModuleList
    class_embed: nn.ModuleList

    def __init__(self, count: int, dim: int, ffn_dim: int, **options: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(dim, ffn_dim, **options) for _ in range(count))
        self.norm = nn.LayerNorm(dim)
        self.ref_point_head = Mlp(2 * dim, dim, dim)


class Decoded(NamedTuple):
    """What the transformer returns. N decoder layers; the queries are those of denoising, if any, then the Q selected.

    Attributes:
        hidden: (N, B, queries, C), normalised.
        references: (N, B, queries, 4), the boxes that each layer's prediction adds to, 0 to 1; those after the first
            carry a gradient.
        proposal_logits: (B, Q, classes), of the selected tokens.
        proposal_boxes: (B, Q, 4), their boxes, 0 to 1.
    """

    hidden: Tensor
    references: Tensor
    proposal_logits: Tensor
    proposal_boxes: Tensor


class DinoTransformer(nn.Module):
    """Encoder, selection of queries and decoder, with the official names (`DeformableTransformer`).

    Args:
        dim: C.
        ffn_dim: hidden width of the MLPs.
        levels: L.
        heads: of the attention.
        points: per head and map.
        encoder_layers: of the encoder.
        decoder_layers: of the decoder.
        num_queries: Q.
        position_temperature: of the sine embedding of the tokens' places.
        position_offset: added to the count of a row or column before it is divided by their number.
        recompute: "context" keeps no samples of the deformable attention for the backward pass, "block" nothing but
            the input of every layer.
    """

    enc_out_class_embed: nn.Linear
    enc_out_bbox_embed: Mlp

    def __init__(
        self, dim: int, ffn_dim: int, *, levels: int, heads: int, points: int, encoder_layers: int,
        decoder_layers: int, num_queries: int, position_temperature: float, position_offset: float,
        recompute: Recompute,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_queries = num_queries
        self.position_temperature, self.position_offset = position_temperature, position_offset
        self.recompute = recompute
        options = {"levels": levels, "heads": heads, "points": points}
        self.encoder = Encoder(encoder_layers, dim, ffn_dim, **options)
        self.decoder = Decoder(decoder_layers, dim, ffn_dim, **options)
        self.level_embed = nn.Parameter(torch.empty(levels, dim))
        self.tgt_embed = nn.Embedding(num_queries, dim)
        self.enc_output = nn.Linear(dim, dim)
        self.enc_output_norm = nn.LayerNorm(dim)
        self.init_weights()
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.recompute = recompute == "context"

    def init_weights(self) -> None:
        """Matrices Xavier uniform, embeddings of the maps normal, attention as `DeformableAttention` says."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.init_weights()
        nn.init.normal_(self.level_embed)

    def forward(
        self, maps: Sequence[Tensor], pyramid: Pyramid, content: Tensor | None, places: Tensor | None,
        hidden: Tensor | None,
    ) -> Decoded:  # fmt: skip
        """From maps to queries.

        Args:
            maps: L times (B, C, h, w).
            pyramid: of the maps.
            content: (B, P, C), of queries for denoising; None for none.
            places: (B, P, 4), their boxes before the sigmoid.
            hidden: (P + Q, P + Q), True where a query must not see another one.
        """
        memory = self.encode(maps, pyramid)
        logits, unactivated = self.select(memory, pyramid)
        boxes = unactivated.detach()
        queries = self.tgt_embed.weight[: boxes.shape[1]].expand(boxes.shape[0], -1, -1)
        if content is not None and places is not None:
            queries, boxes = torch.cat([content.to(queries.dtype), queries], 1), torch.cat([places, boxes], 1)
        states, references = self.decode(queries, boxes.sigmoid(), memory, pyramid, hidden)
        return Decoded(states, references, logits, unactivated.sigmoid())

    def encode(self, maps: Sequence[Tensor], pyramid: Pyramid) -> Tensor:
        """(B, S, C)."""
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        dim = tokens.shape[2]
        embeddings = pyramid.positions(dim, self.position_temperature, self.position_offset)
        position = torch.cat([x + self.level_embed[level] for level, x in enumerate(embeddings)], 1).to(tokens.dtype)
        reference = pyramid.centres()[:, :, None] * pyramid.ratios()[:, None]
        for layer in self.encoder.layers:
            tokens = self._run(layer, tokens, position, reference, pyramid.shapes, pyramid.padding)
        return tokens

    def select(self, memory: Tensor, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
        """Class logits (B, Q, classes) and boxes before the sigmoid (B, Q, 4) of the best tokens.

        A token proposes a box around itself of a twentieth of the image, doubled from map to map. Tokens at the
        edge or outside the image propose one that fills it, of a token of zeros.
        """
        centres = pyramid.centres()
        sides = [centres.new_full((h * w,), 0.05 * 2.0**level) for level, (h, w) in enumerate(pyramid.shapes)]
        size = torch.cat(sides)[None, :, None].expand_as(centres)
        proposals = torch.cat([centres, size], -1)
        outside = ((proposals <= 0.01) | (proposals >= 0.99)).any(-1)
        if pyramid.padding is not None:
            outside = outside | pyramid.padding
        unactivated = (proposals / (1 - proposals)).log().masked_fill(outside[..., None], math.inf)
        memory = memory.masked_fill(outside[..., None], 0.0)
        with torch.no_grad():
            scores = self.enc_out_class_embed(self.enc_output_norm(self.enc_output(memory))).amax(-1)
            chosen = scores.topk(min(self.num_queries, scores.shape[1]), 1).indices[..., None]
        tokens = memory.gather(1, chosen.expand(-1, -1, memory.shape[2]))
        tokens = self.enc_output_norm(self.enc_output(tokens))
        unactivated = unactivated.expand(memory.shape[0], -1, -1).gather(1, chosen.expand(-1, -1, 4))
        return self.enc_out_class_embed(tokens), self.enc_out_bbox_embed(tokens) + unactivated

    def decode(
        self, x: Tensor, reference: Tensor, memory: Tensor, pyramid: Pyramid, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`Decoded.hidden` and `.references` of queries `x` (B, queries, C) at boxes `reference` (B, queries, 4)."""
        ratios = pyramid.ratios().repeat(1, 1, 2)[:, None]
        states, references = [], [reference]
        for index, layer in enumerate(self.decoder.layers):
            placed = reference[:, :, None] * ratios
            box = placed[:, :, 0]
            box = torch.cat([box[..., 1:2], box[..., :1], box[..., 2:]], -1)  # the original's order: y, x, w, h
            sines = sine_embedding(box, x.shape[2] // 2, 10000.0)
            position = self.decoder.ref_point_head(sines.flatten(2).to(self.level_embed.dtype))
            x = self._run(layer, x, position, placed, memory, pyramid.shapes, pyramid.padding, hidden)
            states.append(self.decoder.norm(x))
            if index + 1 < len(self.decoder.layers):
                moved = (self.decoder.bbox_embed[index](x) + inverse_sigmoid(reference)).sigmoid()
                references.append(moved)
                reference = moved.detach()
        return torch.stack(states), torch.stack(references)

    def _run(self, layer: nn.Module, *arguments: object) -> Tensor:
        if self.recompute == "block" and self.training:
            return checkpoint(layer, *arguments, use_reentrant=False)
        return layer(*arguments)
