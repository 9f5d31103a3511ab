"""The command line in processes of its own, each forked from one that has loaded torch and all that trains.

The process that is forked does nothing else, so that none of its threads holds a lock.
"""

import multiprocessing
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    "torch", "torchvision", "torchmetrics", "accelerate", "matplotlib.figure", "focalnet.cli", "focalnet.engine.train",
    "focalnet.engine.evaluate", "focalnet.engine.report", "focalnet.tasks.classify",
])  # fmt: skip


def run(*arguments, patch=""):
    """Exit code (`-9` of a process that was killed), standard output and standard error of a command, after `patch`."""
    with tempfile.TemporaryDirectory() as folder:
        told = [Path(folder, name) for name in ("out", "err")]
        process = SERVER.Process(target=_run, args=([str(word) for word in arguments], patch, told))
        process.start()
        process.join()
        out, err = (path.read_text() for path in told)
    return SimpleNamespace(returncode=process.exitcode, stdout=out, stderr=err)


def _run(words, patch, told):
    for number, path in enumerate(told, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    import torch

    from focalnet.cli import main

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # its workers begin as those of any other command
    exec(patch, {})
    main(words)
