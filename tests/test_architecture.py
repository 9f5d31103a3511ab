"""The house has floors: a module imports only floors under its own, and importing the package stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "focalnet"

FLOORS = {
    "errors": -2,
    "_version": -2,
    "structures": -1,
    "inputs": -1,
    "labels": 0,
    "variants": 0,
    "ops": 0,
    "modulation": 1,
    "backbone": 2,
    "weights": 2,
    "visualize": 2,
    "models": 3,
    "data": 3,
    "metrics": 3,
    "explain": 3,
    "tasks": 4,
    "engine": 5,
    "cli": 7,
    "__main__": 8,
}
"""Rooms and their floors; every other module is an entry point. The command line stands on the other entry points."""
FACES = 6

NEIGHBOURS = {("weights", "backbone"), ("explain", "models")}
"""(importer, imported) pairs that share a floor and may know each other."""

HEAVY = [
    *["accelerate", "captum", "datasets", "matplotlib", "numba", "onnx", "pandas", "rich", "sklearn", "timm"],
    *["torchmetrics", "faster_coco_eval", "av"],
    *["torchvision", "transformers", "tyro"],
]


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(path: Path) -> set[str]:
    """Everything of focalnet that a file imports, inside functions too; the names it takes from a bare import."""
    found, used, bare = set(), set(), False
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            bare |= any(alias.name == "focalnet" for alias in node.names)
            found |= {alias.name for alias in node.names if alias.name.startswith("focalnet.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module.split(".")[0] == "focalnet"}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "focalnet":
            used.add(f"focalnet.{node.attr}")
    return found | used if bare else found


def may_import(importer: str, imported: str) -> bool:
    if importer == imported or imported == "__version__":
        return True
    above, below = FLOORS.get(importer, FACES), FLOORS.get(imported, FACES)
    return below < above or (importer, imported) in NEIGHBOURS


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_down(name, path):
    if name == "focalnet":
        return  # the public list names every floor
    for imported in imports(path):
        assert may_import(room(name), room(imported)), f"{name} imports {imported}: up or sideways"


def test_the_rule_can_fail():
    assert not may_import("ops", "modulation")
    assert not may_import("models", "data")
    assert not may_import("predict", "bench")
    assert may_import("cli", "predict")
    assert may_import("engine", "tasks")


def test_backends_are_reached_through_the_operator():
    """Nothing above the operator knows its backends: they are reached through `focalnet.ops`."""
    for name, path in modules():
        if room(name) not in ("ops", ""):
            assert not {
                i
                for i in imports(path)
                if i.startswith(("focalnet.ops.reference", "focalnet.ops.triton", "focalnet.ops.numba"))
            }, name


def test_import_is_light():
    """`import focalnet` loads torch and nothing else that takes long."""
    script = f"import sys, focalnet; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_import_is_quick():
    """At most 0.3 s over `import torch`: the best of three, since the machine may be busy."""
    script = "import torch, time; start = time.process_time(); import focalnet; print(time.process_time() - start)"
    best = min(float(subprocess.check_output([sys.executable, "-c", script])) for _ in range(3))
    assert best <= 0.3
