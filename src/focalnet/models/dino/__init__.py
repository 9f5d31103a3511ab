"""DINO, our own: multi-scale deformable attention, transformer, denoising, matching, loss, model."""

from focalnet.models.dino.model import Dino

__all__ = ["Dino"]
