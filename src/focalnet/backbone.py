"""The FocalNet backbone: patch embedding, stages of focal blocks, a pyramid of feature maps.

A block mixes positions with focal modulation and channels with an MLP, each in a residual branch:

    pre-norm        x = x + γ1 · FM(norm1(x));   x = x + γ2 · MLP(norm2(x))
    res-post-norm   x = x + γ1 · norm1(FM(x));   x = x + γ2 · norm2(MLP(x))

with γ = 1 where LayerScale is off and stochastic depth around each branch. A stage is a row of blocks; between two
stages a strided convolution halves the map and doubles the channels. Modules and parameters carry the official names.

Two uses differ in how they treat sizes that the strides do not divide, exactly as the official code does in each
place: dense use (`FocalNet`) pads the image and every odd map with zeros at the end of each axis,
classification (`models.classifier`) lets the convolution drop the rest.

What differs from the official code: maps are (B, *S, C) between modules, never flattened to tokens, and S has one axis
for sequences, two for images or three for volumes (`FocalNetConfig.spatial_dims`). As there, the convolutions keep
PyTorch's initialisation (timm and transformers re-draw them).

Legend: B batch, S the spatial axes (T of a sequence, H W of an image, D H W of a volume), C channels.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from focalnet.errors import UserError
from focalnet.layers import Mlp, PatchEmbed, channels_first, channels_last, drop_path
from focalnet.modulation import FocalModulation
from focalnet.variants import FocalNetConfig, Recompute

KINDS = (("sequences", "T", "samples"), ("images", "H, W", "pixels"), ("volumes", "D, H, W", "voxels"))
"""By number of axes: what an input is called, its axes, and what they count."""


class Block(nn.Module):
    """One focal block: modulation and MLP, each in a residual branch (official `FocalNetBlock`).

    Args:
        config: the architecture.
        stage: which stage the block is in.
        drop_path_rate: stochastic depth of this block.
        modulation: makes its token mixer, with the arguments of `FocalModulation`.
    """

    def __init__(
        self,
        config: FocalNetConfig,
        stage: int,
        drop_path_rate: float = 0.0,
        modulation: Callable[..., nn.Module] = FocalModulation,
    ) -> None:
        super().__init__()
        dim = config.channels[stage]
        self.spatial_dims = config.spatial_dims
        self.use_postln = config.use_postln
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(dim)
        self.modulation = modulation(
            dim, focal_level=config.focal_levels[stage], focal_window=config.focal_windows[stage],
            focal_factor=config.focal_factor, proj_drop=config.drop_rate, spatial_dims=config.spatial_dims,
            use_postln_in_modulation=config.use_postln_in_modulation, normalize_modulator=config.normalize_modulator,
        )  # fmt: skip
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), config.drop_rate)
        self.gamma_1 = self.gamma_2 = None
        if config.layerscale_value is not None:
            self.gamma_1 = nn.Parameter(torch.full((dim,), config.layerscale_value))
            self.gamma_2 = nn.Parameter(torch.full((dim,), config.layerscale_value))

    def forward(self, x: Tensor) -> Tensor:
        """(*B, *S, C) -> (*B, *S, C)."""
        x = x + self._branch(x, self.norm1, self.modulation, self.gamma_1)
        return x + self._branch(x, self.norm2, self.mlp, self.gamma_2)

    def _branch(self, x: Tensor, norm: nn.Module, mixer: nn.Module, gamma: Tensor | None) -> Tensor:
        y = norm(mixer(x)) if self.use_postln else mixer(norm(x))
        y = y if gamma is None else y * gamma
        return drop_path(y, self.drop_path_rate, self.training, y.ndim - 1 - self.spatial_dims)


class Stage(nn.Module):
    """A row of blocks, and the downsample to the next stage unless it is the last (official `BasicLayer`).

    Args:
        config: the architecture.
        stage: which stage this is.
        drop_path_rates: stochastic depth per block.
        pad_odd: see `PatchEmbed`.
        modulation: see `Block`.
    """

    def __init__(
        self,
        config: FocalNetConfig,
        stage: int,
        drop_path_rates: Sequence[float],
        *,
        pad_odd: bool,
        modulation: Callable[..., nn.Module] = FocalModulation,
    ) -> None:
        super().__init__()
        self.recompute: Recompute = "none"
        self.blocks = nn.ModuleList(Block(config, stage, rate, modulation) for rate in drop_path_rates)
        self.downsample = None
        if stage + 1 < len(config.depths):
            kernel_size, padding = (3, 1) if config.use_conv_embed else (2, 0)
            self.downsample = PatchEmbed(
                config.channels[stage], config.channels[stage + 1],
                stride=2, kernel_size=kernel_size, padding=padding, pad_odd=pad_odd, spatial_dims=config.spatial_dims,
            )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(*B, *S, C) -> the map before the downsample, and the one after it (the same one in the last stage)."""
        for block in self.blocks:
            recompute = self.recompute == "block" and self.training
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x, x if self.downsample is None else self.downsample(x)


class FocalNetBase(nn.Module):
    """Stem and stages: what classification and dense use share. It has no forward of its own.

    Args:
        config: the architecture.
        pad_odd: pad odd sizes (dense use) or floor them (classification).
        recompute: what the backward pass computes again instead of keeping.

    Class attributes:
        modulation: see `Block`.
        additions: a regular expression for the parameters that it has beyond a plain FocalNet, whose weights are a
            start for it without them; "" for none.

    Attributes:
        config: the architecture.
        frozen: the parts that `freeze` keeps.
        spec: a `weights.spec.ModelSpec`, on networks that `create_model` made.
    """

    modulation: ClassVar[Callable[..., nn.Module]] = FocalModulation
    additions: ClassVar[str] = ""
    spec: Any

    def __init__(self, config: FocalNetConfig, *, pad_odd: bool, recompute: Recompute = "none") -> None:
        super().__init__()
        self.config = config
        stride = config.patch_size
        self.patch_embed = PatchEmbed(
            config.in_channels, config.embed_dim, stride=stride, pad_odd=pad_odd, spatial_dims=config.spatial_dims,
            kernel_size=7 if config.use_conv_embed else stride,
            padding=config.stem_padding if config.use_conv_embed else 0,
        )  # fmt: skip
        self.pos_drop = nn.Dropout(config.drop_rate)
        self.frozen: tuple[nn.Module, ...] = ()
        blocks = sum(config.depths)
        rates = [config.drop_path_rate * block / max(blocks - 1, 1) for block in range(blocks)]
        starts = [sum(config.depths[:stage]) for stage in range(len(config.depths) + 1)]
        self.layers = nn.ModuleList(
            Stage(config, stage, rates[starts[stage] : starts[stage + 1]], pad_odd=pad_odd, modulation=self.modulation)
            for stage in range(len(config.depths))
        )
        self.set_recompute(recompute)

    def set_recompute(self, recompute: Recompute) -> None:
        """Choose what the backward pass computes again: `"none"`, `"context"` or `"block"` (see `Recompute`)."""
        if recompute not in get_args(Recompute):
            raise UserError(f"recompute={recompute!r}; choose one of {', '.join(get_args(Recompute))}.")
        for module in self.modules():
            if isinstance(module, Stage):
                module.recompute = recompute
            elif isinstance(module, FocalModulation | Mlp):
                module.recompute = recompute == "context"

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """`set_recompute("block")`, or `"none"`: timm's name for it."""
        self.set_recompute("block" if enable else "none")

    def freeze(self, stages: int | None = None) -> None:
        """Keep the stem and the first stages as they are: without gradients, and in evaluation mode while training.

        Args:
            stages: how many, each with the downsample after it; without it everything but a classifier's last layer.

        Raises:
            UserError: there are fewer.
        """
        everything = [module for name, module in self.named_children() if name != "head"]
        if stages is not None and not 1 <= stages <= len(self.layers):
            raise UserError(f"--freeze is {stages}; give a number of stages from 1 to {len(self.layers)}, or backbone.")
        first = (self.patch_embed, self.pos_drop, *self.layers[:stages])
        self.frozen = tuple(everything) if stages is None else first
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; frozen parts stay in evaluation mode and without gradients."""
        super().train(mode)
        for module in self.frozen:
            module.eval().requires_grad_(False)
        return self

    @property
    def num_features(self) -> int:
        """Channels of the last stage."""
        return self.config.channels[-1]

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Per stage its channels, stride and module, in timm's words: `num_chs`, `reduction`, `module`."""
        rows = enumerate(zip(self.config.channels, self.config.strides, strict=True))
        return [{"num_chs": channels, "reduction": stride, "module": f"layers.{i}"} for i, (channels, stride) in rows]

    def blocks(self) -> Iterator[Block]:
        """The blocks of all stages, in order: what is sharded over processes as one."""
        yield from (module for module in self.modules() if isinstance(module, Block))

    def forward_stages(self, images: Tensor) -> list[Tensor]:
        """Maps of every stage before its downsample.

        Args:
            images: (B, in_channels, *S), normalised: (B, in_channels, H, W) for images.

        Returns:
            per stage (B, *S / stride, C).

        Raises:
            UserError: the images have another number of channels, or are smaller than one position of the last stage.
        """
        return [before for _, before in self.walk(images)]

    def walk(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Per stage its input and its map before its downsample; arguments and errors as in `forward_stages`."""
        self._check(images)
        x = self.pos_drop(self.embed(images))
        for stage in self.layers:
            before, after = stage(x)
            yield x, before
            x = after

    def embed(self, images: Tensor) -> Tensor:
        """The stem: (B, in_channels, *S) -> (B, *S / stride, C)."""
        return self.patch_embed(channels_last(images))

    def _check(self, images: Tensor) -> None:
        axes, channels = self.config.spatial_dims, self.config.in_channels
        if images.ndim != axes + 2 or images.shape[1] != channels:
            name, sizes, _ = KINDS[axes - 1]
            raise UserError(f"the model takes {name} of shape (B, {channels}, {sizes}), got {tuple(images.shape)}.")

    def init_weights(self) -> None:
        """Initialise as the official code: linear layers truncated normal 0.02, convolutions as PyTorch does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class FocalNet(FocalNetBase):
    """The dense backbone: a pyramid of feature maps for detection and segmentation.

    Maps are taken before each downsample and pass a LayerNorm of their own (`norm0` … `norm3`), as in the
    official detection and segmentation backbones. Sizes that the strides do not divide are padded.

    Args:
        config: the architecture.
        out_indices: the stages to return.
        frozen_stages: as in the official code: 0 or 1 freezes the stem, k ≥ 2 also the stages 0 to k - 2; -1 nothing.
        recompute: what the backward pass computes again instead of keeping.

    Attributes:
        channels: channels of each returned map.
        strides: pixels (samples, voxels) per position of each returned map, along each axis.

    Raises:
        UserError: an index without a stage.
    """

    def __init__(
        self,
        config: FocalNetConfig,
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        recompute: Recompute = "none",
    ) -> None:
        super().__init__(config, pad_odd=True, recompute=recompute)
        stages = len(config.depths)
        if not out_indices or list(out_indices) != sorted({i for i in out_indices if 0 <= i < stages}):
            raise UserError(f"out_indices={tuple(out_indices)}; give rising stage numbers out of 0 to {stages - 1}.")
        if not -1 <= frozen_stages <= stages + 1:
            raise UserError(f"frozen_stages={frozen_stages}; it lies between -1 and {stages + 1}.")
        self.out_indices = tuple(out_indices)
        self.channels = tuple(config.channels[i] for i in out_indices)
        self.strides = tuple(config.strides[i] for i in out_indices)
        for index in out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(config.channels[index]))
        self.init_weights()
        if frozen_stages >= 2:
            self.freeze(frozen_stages - 1)
        elif frozen_stages >= 0:
            self.frozen = (self.patch_embed,)
        self.train()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised maps of the stages in `out_indices`.

        Args:
            images: (B, in_channels, *S), normalised: (B, in_channels, H, W) for images.

        Returns:
            per index (B, C, *ceil(S / stride)), in the strides of `channels_last`.
        """
        maps = self.forward_stages(images)
        return tuple(channels_first(getattr(self, f"norm{i}")(maps[i])) for i in self.out_indices)
