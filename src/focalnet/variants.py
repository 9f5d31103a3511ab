"""Every architecture fact of FocalNet, in one frozen table.

`VARIANTS` maps a name to a `FocalNetConfig`. The rows follow Tables 1 to 4 and 17 of the paper, the released
checkpoints, and, at the end, three small nets of our own for images of 32, 64 and 128 pixels. The suffixes: `srf` and
`lrf` have two and three focal levels (small and large receptive field), `fl3` and `fl4` three and four, `iso` is
the isotropic net with patches of 16 as in a ViT, `overlap` has the overlapped patch embedding of Table 2, `deeper`
the depth and width of Table 3.
"""

import dataclasses
import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from focalnet.errors import UserError, unknown
from focalnet.schemas import build

Recompute = Literal["none", "context", "block"]
"""What the backward pass computes again instead of keeping, while training: nothing; the focal levels, their sum and
the GELU of the MLP, which costs no matrix product; or every block from its input. The gradients are the same."""


@dataclass(frozen=True, kw_only=True)
class FocalNetConfig:
    """The architecture of one FocalNet. Field names follow the official code.

    `focal_levels` and `focal_windows` take one number for all stages or one per stage, and are kept per stage.

    Raises:
        UserError: a field out of range, or stage lists of unequal length.
    """

    embed_dim: int
    """Channels of the first stage; they double at every downsample."""
    depths: tuple[int, ...]
    """Blocks per stage."""
    focal_levels: tuple[int, ...]
    """Focal levels L per stage, without the global one."""
    focal_windows: tuple[int, ...] = (3,)
    """Kernel size of the first level, per stage."""
    focal_factor: int = 2
    """Growth of the kernel from one level to the next."""
    patch_size: int = 4
    """Stride of the stem."""
    in_channels: int = 3
    """Channels of the input."""
    spatial_dims: int = 2
    """Axes of the input: 1 for sequences, 2 for images, 3 for volumes."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over its input width."""
    use_conv_embed: bool = False
    """Overlapped embeddings: stem 7x7 stride 4, downsample 3x3 stride 2."""
    stem_padding: int = 2
    """Padding of the overlapped stem: 2 in classification and DINO, 3 in the official detection code."""
    use_postln: bool = False
    """Res-post-norm blocks: the norm after modulation and MLP, inside the residual branch."""
    layerscale_value: float | None = None
    """Initial LayerScale; None for none."""
    use_postln_in_modulation: bool = False
    """LayerNorm inside the modulation, before its output projection."""
    normalize_modulator: bool = False
    """Divide the gated sum by L+1."""
    drop_rate: float = 0.0
    """Dropout after stem, projections and MLP."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0."""

    def __post_init__(self) -> None:
        if self.spatial_dims not in (1, 2, 3):
            raise UserError(f"spatial_dims={self.spatial_dims}; a FocalNet works on 1, 2 or 3 axes.")
        stages = len(self.depths)
        object.__setattr__(self, "depths", tuple(self.depths))
        if not stages or min(self.depths) < 1:
            raise UserError(f"depths={self.depths}; every stage needs at least one block.")
        for name in ("focal_levels", "focal_windows"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, int) else tuple(value)
            value = value * stages if len(value) == 1 else value
            if len(value) != stages:
                raise UserError(f"{name}={value} has {len(value)} entries for {stages} stages; give one or {stages}.")
            object.__setattr__(self, name, value)
        if self.use_conv_embed and self.patch_size != 4:
            raise UserError(f"use_conv_embed=True has stride 4, but patch_size={self.patch_size}; set patch_size=4.")
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if not all(least <= part <= most for part in (value if isinstance(value, tuple) else (value,))):
                raise UserError(f"{name}={value}; give {least} to {most}.")
        for name in ("drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}; it is a probability below 1.")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per position of each stage."""
        return tuple(self.patch_size * 2**stage for stage in range(len(self.depths)))

    def replace(self, **changes: Any) -> "FocalNetConfig":
        """A copy with some fields changed; an unknown field is refused with the nearest name."""
        _known(changes)
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str = "the architecture") -> "FocalNetConfig":
        """The inverse of `dataclasses.asdict`, from what a file holds.

        Raises:
            UserError: an unknown field, a missing one, one of another type or out of range; it is said of `where`.
        """
        return build(cls, fields, where)


MOST_CHANNELS = 9999
_BOUNDS = {
    "embed_dim": (1, 2**14), "depths": (1, 1000), "focal_levels": (0, 32), "focal_windows": (1, 999),
    "focal_factor": (0, 99), "patch_size": (1, 999), "in_channels": (1, MOST_CHANNELS), "mlp_ratio": (0.01, 99.0),
    "stem_padding": (0, 99),
}  # fmt: skip
"""Far beyond every network there is: what is outside is a mistake, and would take all memory."""


def _known(fields: Mapping[str, Any]) -> None:
    names = [field.name for field in dataclasses.fields(FocalNetConfig)]
    for name in fields:
        if name not in names:
            raise unknown("FocalNet option", name, names)


def _table() -> dict[str, FocalNetConfig]:
    rows: dict[str, FocalNetConfig] = {}
    sizes = {"tiny": (96, (2, 2, 6, 2), 0.2), "small": (96, (2, 2, 18, 2), 0.3), "base": (128, (2, 2, 18, 2), 0.5)}
    for size, (dim, depths, drop_path) in sizes.items():
        for field, levels in (("srf", 2), ("lrf", 3)):
            rows[f"focalnet_{size}_{field}"] = FocalNetConfig(
                embed_dim=dim, depths=depths, focal_levels=(levels,), drop_path_rate=drop_path
            )
    # Table 18 gives base_iso a drop path of 0.3, its yaml 0.2. The released base_iso has `modulation.ln.*`, which
    # today's official factory does not build (microsoft/FocalNet#23).
    rows["focalnet_tiny_iso"] = FocalNetConfig(
        embed_dim=192, depths=(12,), focal_levels=(3,), patch_size=16, drop_path_rate=0.2
    )
    rows["focalnet_small_iso"] = rows["focalnet_tiny_iso"].replace(embed_dim=384)
    rows["focalnet_base_iso"] = rows["focalnet_tiny_iso"].replace(
        embed_dim=768, use_postln_in_modulation=True, layerscale_value=1e-4, drop_path_rate=0.3
    )
    large = FocalNetConfig(
        embed_dim=192, depths=(2, 2, 18, 2), focal_levels=(3,), focal_windows=(5,), use_conv_embed=True,
        use_postln=True, layerscale_value=1e-4, drop_path_rate=0.5,
    )  # fmt: skip
    for size, dim in (("large", 192), ("xlarge", 256), ("huge", 352)):
        huge = size == "huge"
        fl3 = large.replace(embed_dim=dim, focal_windows=(3 if huge else 5,), use_postln_in_modulation=huge)
        rows[f"focalnet_{size}_fl3"] = fl3
        # Whether the released fl4 weights divide the modulator is settled only for large: see weights/hub.py.
        rows[f"focalnet_{size}_fl4"] = fl3.replace(
            focal_levels=(4,), focal_windows=(3,), normalize_modulator=size == "large"
        )
    for size in sizes:
        rows[f"focalnet_{size}_srf_overlap"] = rows[f"focalnet_{size}_srf"].replace(use_conv_embed=True)
    deeper = {"tiny": (64, (3, 3, 16, 3)), "small": (64, (4, 4, 28, 4)), "base": (96, (4, 4, 28, 4))}
    for size, (dim, depths) in deeper.items():
        rows[f"focalnet_{size}_srf_deeper"] = rows[f"focalnet_{size}_srf_overlap"].replace(embed_dim=dim, depths=depths)
    rows["minifocal_32"] = FocalNetConfig(
        embed_dim=32, depths=(1, 2, 1), focal_levels=(2,), patch_size=2, drop_path_rate=0.05
    )
    rows["minifocal_64"] = FocalNetConfig(
        embed_dim=48, depths=(2, 2, 4, 2), focal_levels=(2,), patch_size=2, drop_path_rate=0.1
    )
    rows["minifocal_128"] = FocalNetConfig(
        embed_dim=32, depths=(2, 2, 4, 2), focal_levels=(2,), use_conv_embed=True, drop_path_rate=0.05
    )
    return rows


VARIANTS: Mapping[str, FocalNetConfig] = MappingProxyType(_table())
"""Name -> architecture, for every variant."""


def get_variant(name: str) -> FocalNetConfig:
    """The architecture called `name`.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
    if name not in VARIANTS:
        raise unknown("model", name, VARIANTS)
    return VARIANTS[name]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the variants that match a shell pattern, for example `"*lrf*"`."""
    return [name for name in VARIANTS if fnmatch.fnmatch(name, pattern)]
