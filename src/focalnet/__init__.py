"""Focal Modulation Networks."""
