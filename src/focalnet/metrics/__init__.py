"""What is measured on boxes, masks and maps of labels: tensors in, figures out; no model and no data set is known here.

    detection    average precision and recall of boxes and masks, as COCO defines them
    semantic     intersection over union, accuracy
    panoptic     panoptic, segmentation and recognition quality
    multilabel   average precision and F1 of labels, any number per image

They share one shape: `update` takes one image or several, `compute` gives the figures and `details` what a report shows
besides, both over all processes, so that every process must call them. A figure that is not defined, such as the AP of
small objects where there are none, is absent from `compute` and None in `details`.
"""

from typing import Any

import torch


def gathered(value: Any) -> list[Any]:
    """`value` of every process, in their order; all processes must call this.

    Args:
        value: anything that pickle can carry, on the CPU.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
