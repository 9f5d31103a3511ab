"""Video classification: a FocalNet whose blocks also look along the frames; the mean over positions and frames decides.

Everything but the modulation is the network for images, frame by frame: the same names, the same shapes, so weights of
images are a start for films. A frame is embedded by itself, or with a `tubelet_size` of t each t of them together, by a
convolution in space and time.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from focalnet.backbone import Recompute
from focalnet.errors import UserError
from focalnet.layers import channels_last
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.video_focalnet.modulation import SpatioTemporalFocalModulation
from focalnet.variants import FocalNetConfig


@dataclass(frozen=True, kw_only=True)
class VideoFocalNetOptions:
    """Options of a `VideoFocalNet`."""

    tubelet_size: int = 1
    """Frames that the stem takes together; the number of frames is a multiple of it."""

    def __post_init__(self) -> None:
        if self.tubelet_size < 1:
            raise UserError(f"tubelet_size={self.tubelet_size}; the stem takes at least one frame.")


class VideoFocalNet(FocalNetClassifier):
    """Video-FocalNet for the classification of films (official `classification/videofocalnet.py`).

    Args:
        config: the architecture of the FocalNet for one frame.
        num_classes: logits; 0 returns the pooled features.
        options: of the head.
        recompute: what the backward pass computes again instead of keeping.
    """

    Options = VideoFocalNetOptions
    modulation = SpatioTemporalFocalModulation
    additions = r"layers\.\d+\.blocks\.\d+\.modulation\.(f|h|focal_layers)_temporal\..+"

    def __init__(
        self,
        config: FocalNetConfig,
        *,
        num_classes: int = 400,
        options: VideoFocalNetOptions = VideoFocalNetOptions(),
        recompute: Recompute = "none",
    ) -> None:
        super().__init__(config, num_classes=num_classes, recompute=recompute)
        self.tubelet_size = options.tubelet_size
        if self.tubelet_size > 1:
            if config.use_conv_embed:
                raise UserError(f"tubelet_size={self.tubelet_size} needs patches side by side: a stem without overlap.")
            size = (self.tubelet_size, config.patch_size, config.patch_size)
            self.patch_embed.proj = nn.Conv3d(config.in_channels, config.embed_dim, size, size)

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            inputs: (B, T, in_channels, H, W), normalized, T a multiple of `tubelet_size`.
            sizes: not needed: films of a batch have one size.

        Returns:
            (B, num_classes), or the pooled features (B, C) without a head.
        """
        return super().forward(inputs, sizes)

    def open_temporal_gates(self) -> None:
        """Let a network without weights begin with gates over time near one instead of zero: what looks along the
        frames then counts from the first step."""
        for module in self.modules():
            if isinstance(module, SpatioTemporalFocalModulation):
                nn.init.ones_(module.f_temporal.bias[module.dim :])

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised last maps, (B, T, in_channels, H, W) -> (B, T / tubelet_size, H / stride, W / stride, C)."""
        return super().forward_features(images)

    def embed(self, images: Tensor) -> Tensor:
        """The stem: (B, T, in_channels, H, W) -> (B, T / tubelet_size, H / stride, W / stride, C)."""
        return self.patch_embed(channels_last(images.transpose(1, 2)))

    def _check(self, images: Tensor) -> None:
        channels, smallest = self.config.in_channels, self.config.strides[-1]
        if images.ndim != 5 or images.shape[2] != channels:
            raise UserError(f"the model takes films of shape (B, T, {channels}, H, W), got {tuple(images.shape)}.")
        if images.shape[1] == 0 or images.shape[1] % self.tubelet_size:
            raise UserError(f"{images.shape[1]} frames are no multiple of the {self.tubelet_size} that the stem takes.")
        if min(images.shape[3:]) < smallest:
            size = "x".join(map(str, images.shape[3:]))
            raise UserError(f"films of {size} pixels are too small: this model needs {smallest} or more on each side.")
