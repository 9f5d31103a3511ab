"""Runs hostile inputs, one after the other, in a process of its own: `python worker.py WORK`.

Each line of standard input is `KIND INDEX`; each line of the real standard output answers with one JSON object. An
input gets a folder of its own, in which the commands of `generator` are run by `focalnet.cli.main`, in this process.
What is held against them:

    traceback   an exception that is no exit, a code that is neither 0 nor 2, or the word on standard error
    hang        more than `SECONDS` of a core, or `MOST_SECONDS` by the clock, for a command; an export, which traces a
                network, may take `EXPORT` times as long
    memory      more than 2 GiB resident
    outside     a file made, changed or removed anywhere but in `out/` (and the run that a command trains)
    executed    the mark that hostile pickles try to make
    nan         JSON with a bare NaN or Infinity, or a printed prediction that has one
    words       a refusal that says nothing, or more than a screen
"""

import contextlib
import io
import itertools
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

SECONDS, MOST_SECONDS, EXPORT = 20, 80, 3
MOST = 2 * 2**30
SEED = 15


class Hang(BaseException):
    pass


def peak() -> int:
    """The most bytes that were resident since `forget_peak`."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def snapshot(folder: str, out: str) -> dict[str, tuple[int, int]]:
    """Size and time of every file, but those in `out`."""
    found = {}
    stack = [folder]
    while stack:
        place = stack.pop()
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                if entry.path == out:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                facts = entry.stat(follow_symlinks=False)
                found[entry.path] = (-1 if entry.is_dir(follow_symlinks=False) else facts.st_size, facts.st_mtime_ns)
    return {name: facts for name, facts in found.items() if facts[0] >= 0}


def run(arguments: list[str], stdin: bytes) -> tuple[str | None, int | None, str, str, str]:
    """(what went wrong, exit code, standard output, standard error, traceback) of one command."""
    from focalnet.cli import main

    for handler in list(logging.getLogger().handlers):
        logging.getLogger().removeHandler(handler)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=how) for how in ("strict", "backslashreplace"))
    read = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8", errors="surrogateescape")
    wrong, code, trace, before = None, 0, "", (sys.stdin, sys.stdout, sys.stderr)
    sys.stdin, sys.stdout, sys.stderr = read, out, err
    longer = EXPORT if arguments[0] in ("export", "app") else 1
    signal.alarm(longer * MOST_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, longer * SECONDS)
    try:
        main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except Hang:
        wrong, trace = "hang", traceback.format_exc()
    except BaseException:
        wrong, trace = "traceback", traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        with contextlib.suppress(ValueError):
            out.flush(), err.flush()
        sys.stdin, sys.stdout, sys.stderr = before
    texts = [stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err)]
    if wrong is None and (code not in (0, 2) or "Traceback (most recent call last)" in texts[1]):
        wrong, trace = "traceback", texts[1]
    return wrong, code, *texts, trace


def places_to_write(command: list[str], folder: Path) -> list[str]:
    """What the names of files that a command may write begin with, besides `out`."""
    from commands import WRITTEN

    given = [value for option, value in itertools.pairwise(command) if option in WRITTEN]
    outputs = [str(Path(folder, value)) for value in given if value and "\0" not in value]
    if command[0] == "resume" or (command[0] == "evaluate" and "--data" not in command):
        outputs += [f"{os.path.join(folder, value)}/" for value in command[1:2] if value]  # the run itself
    return outputs


def bare(name: str) -> float:
    raise ValueError(f"a bare {name}")


def undefined(arguments: list[str], out: str, written: list[Path]) -> str | None:
    """A number that is none in what a command printed or wrote as JSON."""
    lines = [line for line in out.splitlines() if line.startswith("{")] if "--json" in arguments else []
    for path in written:
        text = path.read_text(errors="replace")
        lines += text.splitlines() if path.suffix == ".jsonl" else [text]
    for line in lines:
        try:
            json.loads(line, parse_constant=bare)
        except ValueError as error:
            return f"{error}: {line[:200]}"
    if arguments[:1] == ["predict"] and re.search(r"\bnan\b", out):
        return f"printed: {out[:200]}"
    return None


def answer(kind: str, index: int, work: Path) -> dict:
    import generator

    folder = work / f"{kind}_{index}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "out").mkdir(parents=True)
    (folder / "tmp").mkdir()
    os.chdir(folder)
    os.environ["TMPDIR"] = str(folder / "out")
    import tempfile

    tempfile.tempdir = None
    random.seed(0)
    commands, stdin = generator.build(kind, random.Random(f"{SEED} {kind} {index}"), index, folder)
    problems, began = [], time.monotonic()
    forget_peak()
    for command in commands:
        outputs = places_to_write(command, folder)
        before = snapshot(str(work), str(folder / "out"))
        began = time.monotonic()
        wrong, code, out, err, trace = run(command, stdin)
        seconds, most = time.monotonic() - began, peak()
        after = snapshot(str(work), str(folder / "out"))
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        changed = [name for name in changed if not name.startswith(tuple(outputs))]
        written = [p for p in (folder / "out").rglob("*") if p.is_file() and p.suffix in (".json", ".jsonl")]
        found = {
            wrong or "": trace,
            "memory": f"{most / 2**30:.1f} GiB" if most > MOST else "",
            "outside": " ".join(changed[:5]),
            "executed": "executed" if (work / "mark").exists() or (folder / "mark").exists() else "",
            "nan": undefined(command, out, written) or "" if wrong is None and code == 0 else "",
            "words": err[-3000:] if code == 2 and not 10 < len(err.strip()) < 6000 else "",
        }
        problems += [[what, command, text[-6000:], err[-600:]] for what, text in found.items() if what and text]
        if most > MOST:
            forget_peak()
    result = {
        "kind": kind, "index": index, "problems": problems, "seconds": round(seconds, 2), "peak": most, "code": code,
        "said": err.strip()[-400:],
    }  # fmt: skip
    os.chdir(work)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def keep_runtime() -> None:
    """What npm would fetch for a page, without a word in it: nothing here opens the page."""
    from focalnet.app.runtime import FILES, VERSION
    from focalnet.inputs.folders import cache_folder

    folder = cache_folder(f"onnxruntime-web-{VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES.values():
        (folder / name).touch()


def main() -> None:
    work = Path(sys.argv[1]).resolve()
    work.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ |= {
        "HOME": str(work / "home"), "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "NO_COLOR": "1", "RANK": "0",
        "MPLCONFIGDIR": str(work.parent / "matplotlib"), "XDG_CACHE_HOME": str(work.parent / "cache"),
    }  # fmt: skip
    replies, sys.stdout = sys.stdout, sys.stderr
    warnings.simplefilter("ignore")
    keep_runtime()
    import torch

    torch.set_num_threads(1)

    def alarm(*_: object) -> None:
        raise Hang

    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, alarm)
    size = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + 16 * 2**30,) * 2)  # the machine is not ours alone
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**33,) * 2)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        kind, index = line.split()
        print(json.dumps(answer(kind, int(index), work)), file=replies, flush=True)


if __name__ == "__main__":
    main()
