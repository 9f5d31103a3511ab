"""What crosses floors: masks and boxes."""

import torch

from focalnet.structures import masks_to_boxes


def test_masks_to_boxes():
    masks = torch.zeros(4, 5, 7, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 4, 6] = masks[2, 1, 2] = masks[2, 3, 5] = True
    assert masks_to_boxes(masks).tolist() == [[0, 0, 1, 1], [6, 4, 7, 5], [2, 1, 6, 4], [0, 0, 0, 0]]
    assert masks_to_boxes(masks[:0]).shape == (0, 4)
