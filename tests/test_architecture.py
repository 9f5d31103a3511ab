"""The house has floors: a module imports only floors under its own, no two import each other in a circle, a family of
networks is named in its own rooms alone, files are short, nothing stands twice, and importing the package stays light.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "focalnet"

FLOORS = {
    "errors": -4,
    "_version": -4,
    "machine": -4,
    "reading": -3,
    "schemas": -2,
    "structures": -1,
    "inputs": -1,
    "labels": 0,
    "variants": 0,
    "ops": 0,
    "layers": 1,
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
    "app": 7,
    "cli": 8,
    "__main__": 9,
}
"""Rooms and their floors; every other module is an entry point. The page stands on export and prediction, the command
line on all entry points."""
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


def graph() -> dict[str, set[str]]:
    """Module -> the modules of focalnet that it imports."""
    names = {name for name, _ in modules()}

    def module(imported: str) -> str:
        return imported if imported in names else imported.rpartition(".")[0]

    found = {name: {module(imported) for imported in imports(path)} for name, path in modules() if name != "focalnet"}
    return {name: {other for other in others if other in names} - {name, "focalnet"} for name, others in found.items()}


def test_no_imports_in_a_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


COMMON = {"backbone", "classifier", "detection", "sound"}
"""Folders whose names are words of their own, or what detectors share."""
FAMILIES = [path.parent.name for path in SOURCE.glob("models/*/__init__.py") if path.parent.name not in COMMON]


def is_prose(node: ast.AST) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def named_families(path: Path) -> list[str]:
    """Where names and strings of a file, but no comments and docstrings, have the name of a family."""
    wanted = re.compile("|".join(f"{name}|{name.replace('_', '')}" for name in FAMILIES))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {node.value for node in ast.walk(tree) if is_prose(node)}
    found = []
    for node in ast.walk(tree):
        words = " ".join(text for _, text in ast.iter_fields(node) if isinstance(text, str))
        if node not in prose and (match := wanted.search(words.lower())):
            found.append(f"line {getattr(node, 'lineno', '?')}: {match[0]}")
    return found


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_family_is_named_in_its_own_rooms_alone(name, path):
    home = name.split(".")[1:3]
    if home[:1] == ["models"] and home[1:2] and home[1] in [*FAMILIES, "registry"]:
        return
    if name.startswith("focalnet.engine.recipes"):
        return
    assert not named_families(path)


def test_the_families_are_found_where_they_are_named():
    assert set(FAMILIES) >= {"mask_rcnn", "dino", "upernet", "mask2former"}
    assert named_families(SOURCE / "models" / "dino" / "model.py")
    assert named_families(SOURCE / "models" / "registry.py")


LONGEST = 350


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_files_are_short(name, path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


SAME = 6
CODE = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)


def code_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of the lines of a file that hold code, of functions the body: one with a plain reference has its
    signature. Imports, comments, docstrings and lone punctuation do not count."""
    text = path.read_text(encoding="utf-8")
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if is_prose(node) or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, ast.FunctionDef):
            skipped |= set(range(node.lineno, node.body[0].lineno))
    lines: dict[int, str] = defaultdict(str)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in CODE and token.start[0] not in skipped:
            lines[token.start[0]] += f" {token.string}"
    return [(number, line) for number, line in sorted(lines.items()) if re.search(r"\w", line)]


def test_no_six_lines_stand_twice():
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, path in modules():
        lines = code_lines(path)
        for start in range(len(lines) - SAME + 1):
            run = lines[start : start + SAME]
            places[tuple(text for _, text in run)].append(f"{name}:{run[0][0]}")
    assert not {where[0]: where[1:] for where in places.values() if len(where) > 1}


def test_backends_are_reached_through_the_operator():
    """Nothing above the operator knows its backends: they are reached through `focalnet.ops`."""
    for name, path in modules():
        if room(name) not in ("ops", ""):
            assert not {
                i
                for i in imports(path)
                if i.startswith(tuple(f"focalnet.ops.{name}" for name in ("reference", "cuda", "triton", "numba")))
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
