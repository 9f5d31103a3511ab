"""The version of focalnet, here alone: `pyproject.toml` reads this file without importing the package."""

__version__ = "0.1.0"
