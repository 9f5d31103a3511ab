"""What `focalnet predict` of a classifier loads: torch and torchvision, and nothing else that takes long."""

import subprocess
import sys

from PIL import Image

import focalnet

NEEDLESS = [
    *["accelerate", "av", "captum", "datasets", "faster_coco_eval", "matplotlib", "numba", "onnx", "pandas", "scipy"],
    *["sklearn", "supervision", "tensorboard", "timm", "torchmetrics", "trackers", "transformers"],
    *["focalnet.engine.train", "focalnet.engine.evaluate"],
]


def test_a_prediction_loads_only_what_it_needs(tmp_path):
    focalnet.save_pretrained(focalnet.create_model("minifocal_32", num_classes=2), tmp_path / "model")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "one.png")
    script = (
        f"import sys; from focalnet.cli import main; main(['predict', 'model', 'one.png']);"
        f"print(*[name for name in {NEEDLESS} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    prediction, loaded = done.stdout.splitlines()
    assert prediction.startswith("one.png  class ")
    assert loaded.split() == []
