"""The dense backbone as a transformers `AutoBackbone`, so that its detectors and segmenters run on it.

    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation
    from focalnet.models.transformers import FocalNetBackboneConfig      # registers the backbone
    backbone = FocalNetBackboneConfig(architecture="focalnet_tiny_lrf", out_indices=[1, 2, 3, 4])
    config = Mask2FormerConfig(backbone_config=backbone, num_labels=150)
    model = Mask2FormerForUniversalSegmentation(config)                 # any head that takes a `backbone_config`

`save_pretrained` and `from_pretrained` work wherever this module was imported before (a bare backbone in a folder:
`FocalNetBackbone.from_pretrained`; `AutoBackbone.from_pretrained` takes only names on the hub). Weights of a
classifier go in with `model.backbone.trunk.load_state_dict(create_backbone(name, weights=...).state_dict())`
(Mask2Former keeps its backbone in `model.model.pixel_level_module.encoder`).

What differs from transformers' own `FocalNetBackbone` (model type "focalnet"): maps are taken before the downsample,
as the official detection and segmentation code does, so that `stage1` to `stage4` have strides 4, 8, 16 and 32 (there
8, 16, 32 and 32); every map passes a LayerNorm of its own; odd sizes are padded, never floored.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from focalnet.backbone import Block, FocalNet
from focalnet.errors import MissingExtraError, UserError
from focalnet.variants import FocalNetConfig, get_variant

try:
    from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
    from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
    from transformers.modeling_outputs import BackboneOutput
except ImportError as error:
    raise MissingExtraError("the backbone for transformers, and the segmenters on it,", "dense") from error


class FocalNetBackboneConfig(BackboneConfigMixin, PreTrainedConfig):
    """Configuration of `FocalNetBackbone`.

    Args:
        architecture: the name of a variant, or the fields of a `FocalNetConfig`; it is kept as fields.
        out_features: stages to return out of "stage1", "stage2", …; all of them by default.
        out_indices: the same as numbers: 1 for "stage1".

    Raises:
        UserError: an unknown variant or field, or the map of the stem, which has no norm.
    """

    model_type = "focalnet_pyramid"

    architecture: Any = "focalnet_tiny_srf"

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.architecture, str):
            self.architecture = get_variant(self.architecture)
        elif not isinstance(self.architecture, FocalNetConfig):
            self.architecture = FocalNetConfig.from_dict(self.architecture)
        stages = len(self.architecture.depths)
        self.architecture = dataclasses.asdict(self.architecture)
        self.stage_names = ["stem", *(f"stage{stage}" for stage in range(1, stages + 1))]
        features, indices = kwargs.pop("out_features", None), kwargs.pop("out_indices", None)
        if features is None and indices is None:
            features = self.stage_names[1:]
        self.set_output_features_output_indices(out_features=features, out_indices=indices)
        if "stem" in (self.out_features or ()):
            raise UserError(f"the backbone returns stages, not the stem; choose out of {self.stage_names[1:]}.")
        super().__post_init__(**kwargs)

    @property
    def focalnet(self) -> FocalNetConfig:
        """The architecture."""
        return FocalNetConfig.from_dict(self.architecture)


class FocalNetBackbone(BackboneMixin, PreTrainedModel):
    """`FocalNet` under the contract of transformers' backbones.

    Args:
        config: its configuration.

    Attributes:
        backbone: the network.
        channels: channels of each returned map.
    """

    config: FocalNetBackboneConfig
    config_class = FocalNetBackboneConfig
    main_input_name = "pixel_values"
    has_attentions = False

    def __init__(self, config: FocalNetBackboneConfig) -> None:
        super().__init__(config)
        architecture = config.focalnet
        self.num_features = [architecture.embed_dim, *architecture.channels]
        indices = [self.stage_names.index(name) - 1 for name in self.out_features]
        self.trunk = FocalNet(architecture, out_indices=indices)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # `FocalNet` has drawn its weights already; transformers asks again for those that a file did not have
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, Block) and module.gamma_1 is not None and module.gamma_2 is not None:
            nn.init.constant_(module.gamma_1, self.config.architecture["layerscale_value"])
            nn.init.constant_(module.gamma_2, self.config.architecture["layerscale_value"])

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BackboneOutput | tuple[tuple[Tensor, ...]]:
        """Maps of the chosen stages.

        Args:
            pixel_values: (B, 3, H, W), normalised.
            output_hidden_states: return the maps as `hidden_states` too.
            output_attentions: a FocalNet has none.
            return_dict: False for a tuple.

        Returns:
            `feature_maps`, per stage (B, C, ceil(H / stride), ceil(W / stride)).
        """
        maps = self.trunk(pixel_values)
        if return_dict is False:
            return (maps,)
        return BackboneOutput(feature_maps=maps, hidden_states=maps if output_hidden_states else None)


AutoConfig.register(FocalNetBackboneConfig.model_type, FocalNetBackboneConfig)
AutoBackbone.register(FocalNetBackboneConfig, FocalNetBackbone)
