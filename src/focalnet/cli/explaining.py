"""`focalnet explain`."""

from pathlib import Path
from typing import Any

import tyro

from focalnet.cli.reading import AS_TRAINED, Reading


def explain(
    model: tyro.conf.Positional[str],
    image: tyro.conf.Positional[str | None] = None,
    weights: str | None = None,
    out: Path = Path("explanation.png"),
    grad_cam: bool = False,
    target: str | None = None,
    device: str | None = None,
    reading: Reading = AS_TRAINED,
) -> None:
    """Show where a model looks, as one PNG and its arrays as .npz: kernels, gates and modulators.

    Of a sound, what was listened to; of a film, where and when the modulators of the last block are long.

    Args:
        model: A run folder, or the name of a network with --weights.
        image: The image, sound or film; without it, one that the run was not trained on.
        weights: "official", "timm", "transformers", a file or a hub id.
        out: The PNG to write; the arrays go beside it.
        grad_cam: Add Grad-CAM (classifiers).
        target: The class that Grad-CAM explains, by name or number; without it, the likeliest.
        device: Where to compute: cpu, cuda, cuda:1, mps or xpu; without it, the GPU if there is one.
    """
    from focalnet.explain import explain
    from focalnet.predict import Predictor, held_out

    predictor = Predictor(model, weights=weights, device=device, **vars(reading))
    how: Any = predictor.input
    signal = how.read(image) if image else held_out(model, 1, how.read)[0][1]
    out.parent.mkdir(parents=True, exist_ok=True)
    if predictor.input.kind != "image" and not (grad_cam or target):
        predictor.task.explained(predictor.model, signal).save(out)
        print(out)
        return
    explanation = explain(predictor.model, signal, preprocessing=how, target=target, grad_cam=grad_cam)
    explanation.save(out)
    explanation.save_npz(out.with_suffix(".npz"))
    print(f"{out}\n{out.with_suffix('.npz')}")
