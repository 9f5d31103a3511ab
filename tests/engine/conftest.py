"""What runs are trained on."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Two classes of twelve noisy images."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (folder / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 128, (40, 36, 3)) + 127 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder
