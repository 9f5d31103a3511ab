"""Video-FocalNet: the class of a film (Wasim et al., "Video-FocalNets", ICCV 2023, 2307.06947)."""

from focalnet.inputs.films import Video
from focalnet.models.family import Family

TOP1 = {"video_focalnet_tiny": 79.8, "video_focalnet_small": 81.4, "video_focalnet_base": 83.6}
"""Kinetics-400 top-1 in percent, 8 frames at 224, four clips of three crops, as the authors' repository gives it."""

FAMILY = Family(
    name="video_focalnet",
    model="focalnet.models.video_focalnet.model:VideoFocalNet",
    layouts="focalnet.models.video_focalnet.layouts:LAYOUTS",
    title="Video-FocalNet",
    purpose="video classification",
    pipeline="video-classification",
    outputs="logits",
    learns="class",
    export="none",
    variants={size: f"focalnet_{size}_srf" for size in ("tiny", "small", "base")},
    tasks=("video",),
    num_classes=400,
    preprocessing=Video(),
    least_classes=0,
    published=TOP1,
)
