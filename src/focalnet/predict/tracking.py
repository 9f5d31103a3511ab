"""Objects of a film by number: detections of frame after frame, followed by a tracker.

Whatever takes and gives `supervision.Detections`, as those of the package `trackers` do, is a tracker here. Without one
it is ByteTrack (Zhang et al., ECCV 2022): an object begins a track with a score of the threshold, and is followed down
to `LOW`, so that one that is half hidden keeps its number.
"""

from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch

from focalnet.errors import MissingExtraError

LOW = 0.1
"""Least score of an object that is followed."""


class Tracker(Protocol):
    """What follows objects from frame to frame."""

    def update(self, detections: Any, /) -> Any:
        """`supervision.Detections` of the next frame, in any order, with the number of each as `tracker_id`."""
        ...


def bytetrack(threshold: float, rate: Fraction) -> Tracker:
    """ByteTrack, for objects of a film.

    Args:
        threshold: least score of an object that begins a track.
        rate: frames per second.

    Raises:
        MissingExtraError: the package `trackers` is not installed.
    """
    try:
        from trackers import ByteTrackTracker  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("Tracking", "track") from None
    return ByteTrackTracker(
        frame_rate=float(rate), track_activation_threshold=threshold, high_conf_det_threshold=threshold
    )


def follow(tracker: Tracker, prediction: Any, threshold: float) -> Any:
    """The prediction for the next frame with the numbers of its objects.

    Args:
        tracker: has seen the frames before.
        prediction: of a detector, with objects from `LOW` on.
        threshold: least score of an object that is kept though it is on no track.
    """
    found = prediction.to_supervision()
    found.data["place"] = np.arange(len(found))
    tracked = tracker.update(found)
    tracks = torch.full((len(found),), -1)
    if len(tracked):
        tracks[torch.from_numpy(tracked.data["place"])] = torch.from_numpy(np.asarray(tracked.tracker_id)).long()
    return prediction.with_tracks(tracks, threshold)
