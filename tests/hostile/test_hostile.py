"""Hostile inputs end in a sentence or an answer: no traceback, hang, gigabytes, nothing outside, nothing executed.

The inputs are made by `generator` from a kind and a number and run by `worker`, two processes that are started once.
`python tests/hostile/test_hostile.py KIND INDEX...` runs some of them by hand.
"""

import json
import queue
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import generator  # noqa: E402
from worker import EXPORT  # noqa: E402

PATIENCE = 90
"""Seconds after which a worker that does not answer hangs where Python cannot interrupt it."""
QUICK = 1
"""Inputs of each kind in the quick subset."""


class Worker:
    """A process that runs inputs."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(HERE / "worker.py"), str(self.work)]
        self.log = open(self.work.parent / f"{self.work.name}.log", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1
        )
        assert self.reply() == "ready\n", Path(self.log.name).read_text()[-3000:]

    def reply(self, patience: float = PATIENCE) -> str | None:
        """A line of it; None where none comes."""
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        return self.process.stdout.readline() if ready else None

    def run(self, kind: str, index: int) -> dict:
        self.process.stdin.write(f"{kind} {index}\n")
        line = self.reply(EXPORT * PATIENCE if kind in ("export", "command") else PATIENCE)
        if line:
            return json.loads(line)
        self.process.kill()
        code = self.process.wait()
        self.log.close()
        what = "hang" if line is None else f"crash ({code})"
        text = Path(self.log.name).read_text()[-3000:]
        self.start()
        return {
            "kind": kind,
            "index": index,
            "problems": [[what, [], text, ""]],
            "seconds": PATIENCE,
            "peak": 0,
            "code": None,
        }

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        self.log.close()


def run_all(inputs: list[tuple[str, int]], folder: Path, workers: int, each=lambda result: None) -> list[dict]:
    """The results of inputs, shared out among processes."""
    if not (folder / "base").exists():
        generator.prepare(folder / "base")
    todo: queue.Queue = queue.Queue()
    results: list[dict] = []
    for item in inputs:
        todo.put(item)

    def work(number: int) -> None:
        worker = Worker(folder / f"work{number}")
        while True:
            try:
                item = todo.get_nowait()
            except queue.Empty:
                break
            result = worker.run(*item)
            each(result)
            results.append(result)
        worker.stop()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def words(results: list[dict]) -> str:
    """What went wrong, for the message of a failed test."""
    lines = [
        f"{result['kind']} {result['index']}: {what}: {' '.join(command)[:300]}\n{text[-1500:]}"
        for result in results
        for what, command, text, _ in result["problems"]
    ]
    return "\n".join(lines)


def spread(kind: str, count: int) -> list[int]:
    every = generator.every(kind)
    return list(every[:: len(every) // count + 1])  # no multiple of what the kinds turn on


def test_there_are_enough():
    assert sum(len(generator.every(kind)) for kind in generator.KINDS) >= 1500


@pytest.mark.timeout(900)
def test_some_hostile_inputs(tmp_path):
    inputs = [(kind, index) for kind in generator.KINDS for index in spread(kind, QUICK)]
    results = run_all(inputs, tmp_path, 1)
    assert len(results) == len(inputs)
    assert not words(results)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", generator.KINDS)
def test_all_hostile_inputs(tmp_path, kind):
    inputs = [(kind, index) for index in generator.every(kind)]
    results = run_all(inputs, tmp_path, 2)
    assert len(results) == len(inputs)
    assert not words(results)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[2]
    numbers = [int(number) for number in sys.argv[3:]] or list(generator.every(chosen))

    def show(result: dict) -> None:
        print(json.dumps(result), flush=True)

    run_all([(chosen, number) for number in numbers], place, 1, show)
