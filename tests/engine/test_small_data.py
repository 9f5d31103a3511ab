"""A few images are learned by the bare command, with no download."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "small_data.py"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_classes_of_216_images_are_learned(tmp_path):
    spec = importlib.util.spec_from_file_location("small_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = module.make(tmp_path / "crops")
    # with a network within reach, the bare command would fetch released weights
    row = module.measure(folder, tmp_path / "run", 0, "--weights", "None")
    assert row["top1"] >= 0.93
