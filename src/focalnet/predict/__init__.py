"""Predictions for images, and whatever else a network takes: from Python (`Predictor`) and from the command line."""

from focalnet.inputs.files import find_files, find_images
from focalnet.inputs.video import is_video
from focalnet.predict.held_out import held_out
from focalnet.predict.predictor import Predictor

__all__ = ["Predictor", "find_files", "find_images", "held_out", "is_video"]
