"""Drawings: `draw` on images, `plots` of training and evaluation, panels of an `explanation`, all in one `style`."""
