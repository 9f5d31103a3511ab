"""What runs are trained on."""

import pytest

from class_files import dark_and_light


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Two classes of twelve noisy images."""
    return dark_and_light(tmp_path_factory.mktemp("pictures"), (40, 36), dark=12, light=12)
