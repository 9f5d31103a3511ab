"""Focal-TSMP (Shams Eddin and Gall, "Focal-TSMP: deep learning for vegetation health prediction and agricultural
drought assessment from a regional climate simulation", Geoscientific Model Development 17, 2024).

A U-Net of focal blocks on the cells of a map, without patches: the fields of a simulation, 65 that change and 6 that do
not, become the brightness temperature and the vegetation index that a satellite would see. The encoder is a FocalNet
without LayerNorm in its embeddings; each step of the decoder joins what the encoder had at that scale after its blocks,

    x = blocks(x);   x = blocks([skip, conv1x1(double(x))]) at every scale

and two small heads read the last map. A doubled map that misses an odd side is resized to the skip.

What differs from the official code: any height and width; there they are 397 and 409.

Legend: B batch, C channels, H W cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.backbone import Block, FocalNetBase, Recompute
from focalnet.layers import PatchEmbed, channels_first, channels_last
from focalnet.models.base import Network
from focalnet.variants import FocalNetConfig


@dataclass(frozen=True, kw_only=True)
class FocalTsmpOptions:
    """Options of a `FocalTsmp`."""

    decoder_depth: int = 2
    """Blocks per scale of the decoder."""
    decoder_mlp_ratio: float = 2.0
    """Hidden width of the decoder's MLPs over their width."""


class FocalTsmpOutputs(NamedTuple):
    """Raw outputs of a `FocalTsmp`, standardised: (B, H, W) each.

    Attributes:
        temperature: the brightness temperature, K: `17.60 · x + 289.31` in the published model.
        vegetation: the vegetation index NDVI: `0.1498 · x + 0.2019` in the published model.
    """

    temperature: Tensor
    vegetation: Tensor


class Double(nn.Module):
    """Twice the size by bilinear interpolation, then a 1x1 convolution (official `PatchEmbed` of the decoder)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, 2H, 2W)."""
        return self.proj(x)


class UpStage(nn.Module):
    """Blocks at one scale, and the step to the next one unless it is the last.

    Args:
        config: the architecture, with the width of this scale as `embed_dim`.
        rates: stochastic depth per block.
        out_channels: after the step; None for no step.
    """

    def __init__(self, config: FocalNetConfig, rates: list[float], out_channels: int | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, 0, rate) for rate in rates)
        self.upsample = None if out_channels is None else Double(config.embed_dim, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, 2H, 2W), or as before in the last stage."""
        y = channels_last(x)
        for block in self.blocks:
            y = block(y)
        y = channels_first(y)
        return y if self.upsample is None else self.upsample(y)


class RegressionHead(nn.Module):
    """Two 3x3 convolutions to one number per cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(channels // 2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H, W)."""
        return self.conv3(F.leaky_relu(self.conv1(x), 0.2))[:, 0]


class FocalTsmp(Network[FocalTsmpOutputs]):
    """Focal-TSMP. The decoder's parameters bear the official names.

    Args:
        architecture: of the encoder.
        num_classes: none are told apart.
        options: of the decoder.
        recompute: see `FocalNet`.
    """

    Options = FocalTsmpOptions
    backbone_prefix = "backbone."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 0,
        options: FocalTsmpOptions = FocalTsmpOptions(),
        recompute: Recompute = "none",
    ) -> None:
        super().__init__()
        self.backbone = FocalNetBase(architecture, pad_odd=False, recompute=recompute)
        for module in self.backbone.modules():
            if isinstance(module, PatchEmbed):
                module.norm = nn.Identity()  # type: ignore[assignment]
        channels = list(architecture.channels)
        steps = [channels[-1] // 2, *channels[-2:0:-1]] if len(channels) > 1 else []
        widths = [channels[-1], *(skip + step for skip, step in zip(channels[-2::-1], steps, strict=True))]
        depth, blocks = options.decoder_depth, options.decoder_depth * len(widths)
        rates = [architecture.drop_path_rate * (blocks - 1 - block) / max(blocks - 1, 1) for block in range(blocks)]
        stages = []
        for stage, (width, step) in enumerate(zip(widths, [*steps, None], strict=True)):
            config = architecture.replace(
                embed_dim=width, depths=(depth,), focal_levels=architecture.focal_levels[-1 - stage],
                focal_windows=architecture.focal_windows[-1 - stage], mlp_ratio=options.decoder_mlp_ratio,
            )  # fmt: skip
            stages.append(UpStage(config, rates[stage * depth : (stage + 1) * depth], step))
        heads = {name: RegressionHead(widths[-1]) for name in ("BT_block", "NDVI_block")}
        self.decoder = nn.ModuleDict({"layers": nn.ModuleList(stages), **heads})
        self.backbone.set_recompute(recompute)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def class_parameters(self) -> Iterator[str]:
        yield from ()

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> FocalTsmpOutputs:
        """Raw outputs.

        Args:
            inputs: (B, in_channels, H, W), standardised fields.
            sizes: not needed.
        """
        skips = [channels_first(x) for x in self.backbone.forward_stages(inputs)]
        (first, *stages), x = self.decoder["layers"], skips.pop()  # type: ignore[misc]
        x = first(x)
        for stage in stages:
            skip = skips.pop()
            if x.shape[2:] != skip.shape[2:]:
                x = F.interpolate(x, size=skip.shape[2:], mode="bilinear")
            x = stage(torch.cat([skip, x], dim=1))
        return FocalTsmpOutputs(self.decoder["BT_block"](x), self.decoder["NDVI_block"](x))

    def loss(self, inputs: Tensor, targets: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """Mean absolute errors `loss_temperature` and `loss_vegetation`, and `loss`, their sum.

        Args:
            inputs: as in `forward`.
            targets: (B, 2, H, W), standardised temperature and vegetation; NaN where nothing is known.
            sizes: not needed.
        """
        terms = {}
        for name, found, truth in zip(FocalTsmpOutputs._fields, self(inputs), targets.unbind(1), strict=True):
            known = ~truth.isnan()
            error = (found.float() - truth.nan_to_num()).abs() * known
            terms[f"loss_{name}"] = error.sum() / known.sum().clamp(min=1)
        return {**terms, "loss": terms["loss_temperature"] + terms["loss_vegetation"]}

    def postprocess(
        self, outputs: FocalTsmpOutputs, sizes: Tensor | None = None, original_sizes: Tensor | None = None
    ) -> list[FocalTsmpOutputs]:
        """The outputs of each map, (H, W) each."""
        return [FocalTsmpOutputs(*maps) for maps in zip(*outputs, strict=True)]
