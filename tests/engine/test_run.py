"""The run folder: whatever happens while it is written, something whole is left."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from focalnet.engine import run as run_module
from focalnet.engine.report import write_results
from focalnet.engine.run import RunFolder, write_atomically
from focalnet.errors import UserError


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", {"task": {"name": "classify"}})


def files(content: bytes):
    return {"state.pt": lambda: content, "model.safetensors": lambda: content * 2}


def test_create_refuses_a_folder_that_holds_a_run(run):
    with pytest.raises(UserError, match=r"holds a run already.*focalnet resume"):
        RunFolder.create(run.path, {})


def test_create_says_when_a_file_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is in the way"):
        RunFolder.create(tmp_path / "file" / "run", {})


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder, it has no config\.json"):
        RunFolder.open(tmp_path / "nothing")


def test_damaged_config(run):
    (run.path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        RunFolder.open(run.path).config()


def test_rows_ignore_a_line_that_a_killed_process_left_unfinished(run):
    run.append_row({"step": 1, "loss": 0.5})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert run.rows() == [{"step": 1, "loss": 0.5}]


def test_forget_after_drops_later_rows(run):
    for step in (10, 20, 30):
        run.append_row({"step": step})
    run.forget_after(20)
    assert [row["step"] for row in run.rows()] == [10, 20]


def test_checkpoint_round_trip_and_replacement(run):
    for content in (b"one", b"two"):
        run.save_checkpoint("last", files(content))
        assert (run.checkpoint("last") / "state.pt").read_bytes() == content
    assert sorted(os.listdir(run.path)) == ["config.json", "last"]


def test_missing_checkpoint(run):
    assert run.to_go_on_from("last") is None
    with pytest.raises(UserError, match="no checkpoint 'last'"):
        run.checkpoint("last")


def test_a_checkpoint_that_is_gone_is_no_reason_to_begin_anew(run):
    run.append_row({"step": 10})
    assert run.to_go_on_from("last") is None  # killed between the first row and the first checkpoint
    run.append_row({"step": 20})
    with pytest.raises(UserError, match=r"no checkpoint, but its metrics\.jsonl tells of 2 epochs: put"):
        run.to_go_on_from("last")
    run.save_checkpoint("best", files(b"content"))
    with pytest.raises(UserError, match="has no checkpoint 'last'; the checkpoint 'best' is whole: add --checkpoint"):
        run.to_go_on_from("last")
    assert run.to_go_on_from("best") == run.path / "best"
    for name, sentence in (("bset", "There is no checkpoint 'bset'; did you mean 'best'"), ("last", "best")):
        with pytest.raises(UserError, match=sentence):
            run.to_go_on_from(name)


def test_truncated_checkpoint_names_the_file_and_the_other_checkpoint(run):
    run.save_checkpoint("last", files(b"content"))
    run.save_checkpoint("best", files(b"content"))
    (run.path / "last" / "state.pt").write_bytes(b"cont")
    with pytest.raises(UserError, match=r"state\.pt has 4 of 7 bytes.*--checkpoint best"):
        run.checkpoint("last")
    assert run.checkpoint("best")


def test_corrupted_checkpoint_is_found_by_its_checksum(run):
    run.save_checkpoint("last", files(b"content"))
    (run.path / "last" / "state.pt").write_bytes(b"contenT")
    with pytest.raises(UserError, match=r"another checksum.*train again"):
        run.checkpoint("last")


def test_missing_file_in_a_checkpoint(run):
    run.save_checkpoint("last", files(b"content"))
    (run.path / "last" / "state.pt").unlink()
    with pytest.raises(UserError, match=r"state\.pt is missing"):
        run.checkpoint("last")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_keeps_the_older_checkpoint(run, code):
    run.save_checkpoint("last", files(b"old"))

    def full() -> bytes:
        raise OSError(code, os.strerror(code))

    with pytest.raises(UserError, match=r"The disk is full.*what was there before is intact"):
        run.save_checkpoint("last", {"state.pt": lambda: b"new", "model.safetensors": full})
    assert (run.checkpoint("last") / "state.pt").read_bytes() == b"old"
    assert not (run.path / "last.new").exists()


def test_a_limit_of_the_operating_system_counts_as_a_full_disk(run):
    run.save_checkpoint("last", files(b"old"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(UserError, match="The disk is full"):
            run.save_checkpoint("last", files(bytes(1 << 21)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (run.checkpoint("last") / "state.pt").read_bytes() == b"old"


def test_read_only_folder(run, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(run_module, "_write", refuse)
    with pytest.raises(UserError, match="cannot be written"):
        run.save_checkpoint("last", files(b"new"))
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(run.path / "report.html", b"")


@pytest.mark.parametrize("left", [("last.old",), ("last.old", "last.new"), ("last", "last.new"), ("last", "last.old")])
def test_settle_after_a_kill_between_any_two_steps(run, left):
    run.save_checkpoint("last", files(b"whole"))
    whole = run.path / "last"
    for name in left:
        if name != "last":
            shutil.copytree(whole, run.path / name)
    if "last.new" in left:
        (run.path / "last.new" / "manifest.json").unlink()
    if "last" not in left:
        shutil.rmtree(whole)
    run.settle("last")
    assert (run.checkpoint("last") / "state.pt").read_bytes() == b"whole"
    assert sorted(os.listdir(run.path)) == ["config.json", "last"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from focalnet.engine import run
original, count = run._write, 0
def dying(path, content):
    global count
    count += 1
    if count == {after}:
        open(path, "wb").write(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return original(path, content)
run._write = dying
folder = run.RunFolder({path!r})
folder.save_checkpoint("last", {{"state.pt": lambda: b"new" * 1000, "model.safetensors": lambda: b"new" * 1000}})
"""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_kill_9_while_a_checkpoint_is_written_leaves_the_older_one(run, after):
    run.save_checkpoint("last", files(b"old"))
    script = KILLED_WHILE_WRITING.format(after=after, path=str(run.path))
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    run.settle("last")
    assert (run.checkpoint("last") / "state.pt").read_bytes() == b"old"
    assert not (run.path / "last.new").exists()


def test_write_atomically_replaces(tmp_path):
    path = tmp_path / "file.json"
    write_atomically(path, b"1")
    write_atomically(path, json.dumps([2]).encode())
    assert json.loads(path.read_text()) == [2]
    assert os.listdir(tmp_path) == ["file.json"]


def test_results_name_files_of_any_bytes(tmp_path):
    write_results(tmp_path, {"box.csv": os.fsdecode(b"\xff.png")})
    assert (tmp_path / "box.csv").read_bytes() == b"\xff.png"
