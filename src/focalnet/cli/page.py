"""`focalnet app`."""

import tempfile
from pathlib import Path

import tyro


def app(
    model: tyro.conf.Positional[str],
    static: Path | None = None,
    port: int = 8000,
    weights: str | None = None,
    examples: int = 8,
    image_size: int | tuple[int, int] | None = None,
) -> None:
    """Show a network in the browser: drop an image, see the answer, and where the network looks.

    Everything runs in the browser; no image leaves the computer of whoever opens the page. Needs Node.js once, whose
    npm fetches ONNX Runtime for browsers.

    Args:
        model: A run folder, a model folder or a weight file, or the name of a network with --weights.
        static: Write the page into this folder, for any web server, instead of serving it here.
        port: Where to serve it on 127.0.0.1; 0 for any port that is free.
        weights: "official", "timm", "transformers", a file or a hub id.
        examples: Images that the run was not trained on which go along; 0 for none.
        image_size: Side of the inputs, or height and width, of detectors, which have one size there.
    """
    from focalnet.app import build, open_server, serve

    options = {"weights": weights, "examples": examples, "image_size": image_size}
    if static is not None:
        folder = build(model, static, **options)
        print(f"{folder}/index.html is the page; serve the folder, for example: python -m http.server -d {folder}")
        return
    with tempfile.TemporaryDirectory() as place, open_server(Path(place) / "page", port) as server:
        build(model, Path(place) / "page", **options)
        serve(server)
