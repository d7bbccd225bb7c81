"""Two runs of the same output: the second one is told, and nothing of the first is touched."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lora_rec import lock
from lora_rec.errors import DataError, TrainingError
from lora_rec.export.blocks import Blocks
from lora_rec.train.checkpoint import Checkpoints

CODE = """
import sys
from pathlib import Path
from lora_rec.export.blocks import Blocks
from lora_rec.train.checkpoint import Checkpoints
what, place = sys.argv[1], Path(sys.argv[2])
held = Blocks(place, {"a": 1}) if what == "blocks" else Checkpoints(place, run={"a": 1})
print("held", flush=True)
sys.stdin.readline()
held.remove()
"""


@pytest.fixture
def held_by_another(tmp_path):
    running = []

    def hold(what):
        command = [sys.executable, "-c", CODE, what, str(tmp_path / "out")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in running:
        process.kill()
        process.wait()


SECOND = [
    ("blocks", lambda place: Blocks(place, {"a": 2}), DataError),
    ("checkpoints", lambda place: Checkpoints(place, run={"a": 2}, resume=False), TrainingError),
]


@pytest.mark.parametrize(("what", "again", "error"), SECOND)
def test_a_second_process_is_refused_until_the_first_has_ended(
    held_by_another, tmp_path, monkeypatch, what, again, error
):
    process = held_by_another(what)
    folder = tmp_path / ("out" if what == "checkpoints" else ".out.writing")
    before = sorted(path.name for path in folder.iterdir())
    with monkeypatch.context() as quick:
        quick.setattr(lock, "PATIENCE", 0.1)
        with pytest.raises(error, match="another process is writing it; wait for that one, or give output"):
            again(tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == before
    began = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    again(tmp_path / "out")  # waits until the killed one is gone
    assert time.monotonic() - began < lock.PATIENCE


@pytest.mark.parametrize(("what", "again", "error"), SECOND)
def test_who_waits_begins_once_the_first_has_finished(held_by_another, tmp_path, what, again, error):
    process = held_by_another(what)
    finish = threading.Timer(0.3, process.communicate, ["\n"])
    finish.start()
    second = again(tmp_path / "out")  # the first takes the folder away meanwhile
    finish.join()
    assert process.returncode == 0
    assert (second.folder / lock.LOCK).exists()


def test_a_folder_in_which_another_begins_is_left_to_it(tmp_path, monkeypatch):
    blocks, unlink = Blocks(tmp_path / "out", {"a": 1}), Path.unlink

    def another_begins(path, **options):
        unlink(path, **options)
        if path.name == lock.LOCK:
            path.touch()

    monkeypatch.setattr(Path, "unlink", another_begins)
    blocks.remove()
    assert [path.name for path in blocks.folder.iterdir()] == [lock.LOCK]


@pytest.mark.parametrize("number", lock.NO_LOCKS)
def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert Checkpoints(tmp_path / "run", run={"a": 1}).load() is None
    assert "this file system has no locks; let one process at a time write it" in caplog.text


def test_one_process_may_begin_again(tmp_path):
    first = Checkpoints(tmp_path / "run", run={"a": 1})
    second = Checkpoints(tmp_path / "run", run={"a": 1})  # as a notebook does after an error
    second.remove()
    assert not (tmp_path / "run").exists()
    third = Checkpoints(tmp_path / "run", run={"a": 1})
    assert third.folder == first.folder
    assert (tmp_path / "run" / lock.LOCK).exists()


def test_finished_blocks_keep_no_lock(tmp_path):
    blocks = Blocks(tmp_path / "out", {"a": 1})
    blocks.finish(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_after_an_error_others_may_write(held_by_another, tmp_path):
    with pytest.raises(KeyError) as kept, Blocks(tmp_path / "out", {"a": 1}) as blocks:
        raise KeyError("an item")
    assert blocks.folder.exists()
    assert kept.traceback  # as a notebook keeps it, with all that it refers to
    held_by_another("blocks").communicate("\n")


def test_whether_a_folder_is_locked(tmp_path):
    assert not lock.is_locked(tmp_path / "nothing")
    held = lock.FolderLock(tmp_path / "here", error=ValueError)
    assert lock.is_locked(tmp_path / "here")
    held.release()
    assert not lock.is_locked(tmp_path / "here")
