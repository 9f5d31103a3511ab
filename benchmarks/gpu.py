"""What only a GPU can tell about the focal operator, in one run of at most `--budget` seconds.

    PYTHONPATH=src python benchmarks/gpu.py --out OUT               on a machine with a CUDA device
    PYTHONPATH=src python benchmarks/gpu.py --out OUT --rehearse    the same steps, tiny, on a CPU
    PYTHONPATH=src python benchmarks/gpu.py --out OUT --steps       no step: the summary of what OUT holds

Nothing is installed: torch, triton, timm and pytest are enough. Every step of `gpu_steps` is a process of its own with
its own time; what a step leaves over goes to those after it. Rows are flushed one by one to OUT/rows.jsonl, output
goes to OUT/log.txt, caches to OUT/cache, so a step that fails or is out of time loses nothing that it has measured.
A rehearsal hides the packages that such a machine lacks.

The claims, for B-LRF at batch 128, 224 pixels, bfloat16:

    operator forward          4   times plain PyTorch          model forward                1.8 times timm
    operator with backward    3   times plain PyTorch          training step                1.6 times timm
    both compiled             1.2 times timm compiled          memory of a training step    at most 0.6 of timm's
    one image, CUDA graph     at most 0.4 of eager             800 x 1216, windows 9 11 13  2   times timm

The rule for the order of backends on CUDA: ours first if it is right and at least 1.1 times plain PyTorch forward and
training at both batches of the model; forward alone at both: first where nothing is learned; else last.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEPS = {
    "machine": 25, "warm": 60, "right": 35, "kernels": 50, "models": 100, "cuts": 50, "single": 40,
    "compiled_forward": 65, "compiled_training": 65, "tests": 70,
}  # fmt: skip
"""Step -> its seconds, in the order in which they tell most."""
BUDGET = 560
LACKING = (
    "tyro", "docstring_parser", "typeguard", "captum", "supervision", "pycocotools", "faster_coco_eval", "datasets",
    "webdataset", "av", "hypothesis",
)  # fmt: skip
HIDE = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_others(finder, name, path=None, target=None):
    return None if name.partition(".")[0] in {LACKING!r} else find(name, path, target)
PathFinder.find_spec = classmethod(find_others)
"""
WIN = 1.1
OURS = "cuda"


def run_step(name: str, seconds: float, out: Path, options: argparse.Namespace, command: list[str]) -> str:
    """Run one step; how it ended, in words."""
    cache = out / "cache"
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "1", "XDG_CACHE_HOME": str(cache), "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch" / "inductor"),
    }  # fmt: skip
    if options.rehearse:
        hidden = cache / "hidden"
        hidden.mkdir(parents=True, exist_ok=True)
        (hidden / "sitecustomize.py").write_text(HIDE)
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(hidden), environment["PYTHONPATH"]]), "TRITON_INTERPRET": "1",
            "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1",  # to compile takes minutes there
        }  # fmt: skip
    with (out / "log.txt").open("a") as log:
        log.write(f"\n===== {name}, at most {seconds:.0f} s\n")
        log.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(max(seconds, 1))
        except subprocess.TimeoutExpired:
            return "out of time"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own workers too
            process.wait()
    return "done" if code == 0 else f"failed with code {code}"


def read_rows(out: Path) -> list[dict[str, Any]]:
    """All rows but one that a kill cut short."""
    rows = []
    path = out / "rows.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def cell(rows: list[dict[str, Any]], column: str, **facts: Any) -> float | None:
    """The latest row with these facts has this number in `column`; None where it was not measured."""
    found = [row[column] for row in rows if row.get(column) is not None and facts.items() <= row.items()]
    return found[-1] if found else None


def decision(rows: list[dict[str, Any]]) -> str:
    """The order of backends on CUDA that the rule wants, and why."""
    checks = {row["what"]: row for row in rows if row["step"] == "right"}
    wrong = [f"{what} (error {row['error']:.1e})" for what, row in checks.items() if not row["ok"]]
    if wrong:
        return f"{OURS} last: it is wrong at {', '.join(wrong)}"
    if not checks:
        return "no decision: nothing was checked"
    ratios: dict[tuple[str, int], float] = {}
    for row in rows:
        if row["step"] == "models" and row.get("decides") and row["candidate"] == "reference":
            ratios[row["pass"], row["batch"]] = row["ratio"]
    words = ", ".join(f"{name} at batch {batch} {ratio:.2f}" for (name, batch), ratio in sorted(ratios.items()))
    passes = {name: [ratio for (each, _), ratio in ratios.items() if each == name] for name in ("forward", "training")}
    wins = {name: len(found) >= 2 and min(found) >= WIN for name, found in passes.items()}
    if not ratios:
        return "no decision: no model was measured"
    if all(wins.values()):
        return f"{OURS} first on CUDA ({words} times plain PyTorch)"
    if any(len(found) < 2 for found in passes.values()):
        return f"no decision yet: {words} times plain PyTorch, the rest was not measured"
    if wins["forward"]:
        return f"{OURS} first on CUDA where nothing is learned ({words} times plain PyTorch)"
    return f"{OURS} last ({words} times plain PyTorch)"


def claims(rows: list[dict[str, Any]]) -> list[tuple[str, float, float | None]]:
    """(claim, wanted, found); None where a number was not measured."""

    def over(numerator: float | None, denominator: float | None) -> float | None:
        return None if numerator is None or denominator is None else numerator / denominator

    found: list[tuple[str, float, float | None]] = []
    for direction, operator, eager, words in (
        ("forward", 4.0, 1.8, "forward"), ("training", 3.0, 1.6, "with backward"),
    ):  # fmt: skip
        facts = {"step": "kernels", "part": "operator", "pass": direction, "stage": "all"}
        ms = [cell(rows, "ms", **facts, candidate=name) for name in ("reference", OURS)]
        found.append((f"operator {words}, x plain PyTorch", operator, over(*ms)))
        facts = {"step": "models", "decides": True, "large": True, "pass": direction}
        found.append((f"model {words}, x timm", eager, cell(rows, "ratio", **facts, candidate="timm")))
        facts = {"step": f"compiled_{direction}"}
        ms = [cell(rows, "ms", **facts, candidate=name) for name in ("timm, compiled", f"{OURS}, compiled")]
        found.append((f"model {words}, both compiled, x timm", 1.2, over(*ms)))
    facts = {"step": "models", "decides": True, "large": True, "pass": "training"}
    mib = [cell(rows, "mib", **facts, candidate=name) for name in (OURS, "timm")]
    found.append(("memory of a training step, of timm's (at most)", 0.6, over(*mib)))
    ms = [cell(rows, "ms", step="single", candidate=name) for name in (f"{OURS}, CUDA graph", OURS)]
    found.append(("one image, CUDA graph over eager (at most)", 0.4, over(*ms)))
    ratio = cell(rows, "ratio", step="single", what="detection", candidate="timm")
    return [*found, ("detection size forward, x timm", 2.0, ratio)]


def summary(out: Path, ended: dict[str, str]) -> str:
    rows = read_rows(out)
    lines = [f"{name:20}{words}" for name, words in ended.items()]
    facts = next((row for row in reversed(rows) if row["step"] == "machine"), {})
    lines += ["", ", ".join(f"{key} {value}" for key, value in facts.items() if key != "smi"), ""]
    for row in rows:
        if row["step"] not in ("machine", "warm") and row.get("part") != "kernel":
            lines.append("  ".join(f"{key} {value}" for key, value in row.items() if key not in ("device", "commit")))
    lines += ["", f"{'claim':60}{'wanted':>8}{'found':>8}"]
    for words, wanted, value in claims(rows):
        lines.append(f"{words:60}{wanted:8.2f}{'-' if value is None else f'{value:.2f}':>8}")
    return "\n".join([*lines, "", f"order of backends: {decision(rows)}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=list(STEPS))
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all steps together")
    parser.add_argument("--commit", default="", help="kept with the rows where git is not at hand")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.budget
    ended = {}
    for index, name in enumerate(options.steps):
        later = sum(STEPS[each] for each in options.steps[index + 1 :])
        seconds = max(end - time.monotonic() - later, min(STEPS[name], end - time.monotonic()))
        if seconds < 1:
            ended[name] = "no time left"
            continue
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu_steps.py"), name, str(out / "rows.jsonl")]
        command += ["--rehearse"] * options.rehearse + [f"--commit={options.commit}"]
        begin = time.monotonic()
        words = run_step(name, seconds, out, options, command)
        ended[name] = f"{words}, {time.monotonic() - begin:.0f} s"
        print(f"{name}: {ended[name]}", flush=True)
        if words != "done":
            print("".join(f"    {line}\n" for line in (out / "log.txt").read_text().splitlines()[-12:]), flush=True)
    text = summary(out, ended)
    (out / "summary.txt").write_text(text + "\n")
    print("\n" + text)


if __name__ == "__main__":
    main()
