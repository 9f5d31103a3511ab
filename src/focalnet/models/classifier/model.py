"""Image classification: the backbone, LayerNorm, the mean over positions, one linear layer.

Where `spec.task` is "multilabel", each class is a question of its own: sigmoids instead of a softmax.

The state dict is the official one (`classification/focalnet.py`): the backbone's names at the top level, `norm` and
`head` beside them. Odd sizes are floored as there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.backbone import KINDS, FocalNetBase, Recompute
from focalnet.errors import UserError
from focalnet.models.base import Network
from focalnet.variants import FocalNetConfig


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions:
    """Options of a `FocalNetClassifier`: it has none."""


class FocalNetClassifier(FocalNetBase, Network[Tensor]):
    """FocalNet for the classification of images; of sequences or volumes with another `spatial_dims`.

    Args:
        config: the architecture.
        num_classes: logits; 0 returns the pooled features.
        options: of the head.
        recompute: what the backward pass computes again instead of keeping.
    """

    Options = ClassifierOptions
    backbone_prefix = ""

    def __init__(
        self,
        config: FocalNetConfig,
        *,
        num_classes: int = 1000,
        options: ClassifierOptions = ClassifierOptions(),
        recompute: Recompute = "none",
    ) -> None:
        super().__init__(config, pad_odd=False, recompute=recompute)
        self.num_classes = num_classes
        self.norm = nn.LayerNorm(config.channels[-1])
        self.head = nn.Linear(config.channels[-1], num_classes) if num_classes else nn.Identity()
        self.init_weights()

    def class_parameters(self) -> Iterator[str]:
        """Names in the state dict whose shape depends on the number of classes: new for other classes."""
        yield from (f"head.{name}" for name, _ in self.head.named_parameters())

    def get_classifier(self) -> nn.Module:
        """The last linear layer, or an identity without classes."""
        return self.head

    @property
    def head_hidden_size(self) -> int:
        """Channels of what `forward_head` gives with `pre_logits`."""
        return self.num_features

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer on, of random weights, for other classes; 0 for none.

        `spec` follows: the names of the classes are gone, because they were those of the old layer.

        Args:
            num_classes: how many.
            global_pool: as in timm; "avg" is the one that there is.

        Raises:
            UserError: another pooling.
        """
        if global_pool not in (None, "avg"):
            raise UserError(f"global_pool={global_pool!r}; a FocalNet averages, leave it out or give 'avg'.")
        self.num_classes = num_classes
        weight = next(self.norm.parameters())
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(head, nn.Linear):
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.head = head.to(weight.device, weight.dtype)
        if spec := self.__dict__.get("spec"):
            self.spec = spec.replace(num_classes=num_classes, classes=None, threshold=None)

    @property
    def multilabel(self) -> bool:
        """Whether an input may have any number of classes."""
        spec = self.__dict__.get("spec")
        return spec is not None and spec.task == "multilabel"

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised last map, (B, in_channels, *S) -> (B, *S / stride, C)."""
        return self.norm(self.forward_stages(images)[-1])

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, *S / stride, C) of `forward_features` -> logits, or with `pre_logits` their mean over the map, (B, C)."""
        pooled = features.mean(dim=tuple(range(1, features.ndim - 1)))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            inputs: (B, in_channels, *S), normalized: (B, in_channels, H, W) for images.
            sizes: not needed: images of a batch have one size.

        Returns:
            (B, num_classes), or the pooled features (B, C) without a head.
        """
        return self.forward_head(self.forward_features(inputs))

    def loss(self, inputs: Tensor, targets: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """Cross-entropy, in float32, as `loss`; of a multi-label network the mean of the binary ones.

        Args:
            inputs: as in `forward`.
            targets: (B,), int64, the classes, or (B, num_classes), their probabilities.
            sizes: not needed.
        """
        if self.multilabel:
            return {"loss": F.binary_cross_entropy_with_logits(self(inputs).float(), targets)}
        return {"loss": F.cross_entropy(self(inputs).float(), targets)}

    def postprocess(
        self, outputs: Tensor, sizes: Tensor | None = None, original_sizes: Tensor | None = None
    ) -> list[Tensor]:
        """Per image the probabilities of the classes, (num_classes,), float32."""
        outputs = outputs.float()
        return list(outputs.sigmoid() if self.multilabel else outputs.softmax(-1))

    def _check(self, images: Tensor) -> None:
        super()._check(images)
        smallest = self.config.strides[-1]
        if min(images.shape[2:]) < smallest:
            name, _, unit = KINDS[self.config.spatial_dims - 1]
            raise UserError(
                f"{name} of {'x'.join(map(str, images.shape[2:]))} {unit} are too small: "
                f"this model needs {smallest} or more on each side."
            )
