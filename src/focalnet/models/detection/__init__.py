"""What detectors share: anchors, box coder, matcher, NMS, pooling and pasting of regions, pyramid, proposals.

torchvision's modules and names, the arithmetic of the models that were published with mmdet. Everything here computes
in float32, also under autocast and with weights of half precision; in float64 with such.
"""
