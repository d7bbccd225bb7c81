"""Checkpoints on disk: whole or not at all, checked, of this run, two of them."""

import errno
import json
import logging
import os
from types import SimpleNamespace

import pytest
import torch

import lora_rec.train.checkpoint as module
from lora_rec.errors import TrainingError
from lora_rec.pipeline.checkpoints import open_run
from lora_rec.recipe import CheckpointSection
from lora_rec.train.checkpoint import MANIFEST, STATE, TENSORS, Checkpoint, Checkpoints

RUN = {"train.seed": 0, "train.epochs": 3, "data": "abc"}


def opened(folder, **options):
    return Checkpoints(folder, **{"run": RUN} | options)


def of_step(step):
    return Checkpoint(step, {"a": torch.full((2, 3), float(step)), "b": torch.tensor([True])}, {"n": step})


@pytest.fixture
def three(tmp_path):
    """The checkpoints of three steps, of which the first is gone."""
    kept = opened(tmp_path / "kept")
    for step in (1, 2, 3):
        kept.save(of_step(step))
    return kept


def test_what_was_saved_comes_back(three):
    found = three.load()
    assert (found.step, found.state) == (3, {"n": 3})
    assert torch.equal(found.tensors["a"], torch.full((2, 3), 3.0))
    assert found.tensors["b"].dtype == torch.bool


def test_two_are_kept_and_nothing_in_them_is_a_pickle(three):
    assert sorted(path.name for path in three.folder.glob("*-*")) == ["step-00000002", "step-00000003"]
    for folder in three.folder.glob("*-*"):
        assert {path.name for path in folder.iterdir()} == {MANIFEST, STATE, TENSORS}
        json.loads((folder / STATE).read_text())
        header = int.from_bytes((folder / TENSORS).read_bytes()[:8], "little")
        json.loads((folder / TENSORS).read_bytes()[8 : 8 + header])


def test_nothing_there_is_no_checkpoint(tmp_path):
    assert opened(tmp_path / "new").load() is None


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip, os.remove])
@pytest.mark.parametrize("name", [MANIFEST, STATE, TENSORS])
def test_a_damaged_one_is_left_for_the_one_before(three, caplog, name, harm):
    if (name, harm) == (MANIFEST, flip):
        pytest.skip("white space at its end says nothing")
    harm(three.folder / "step-00000003" / name)
    with caplog.at_level(logging.WARNING, logger="lora_rec"):
        assert three.load().step == 2
    assert "step-00000003: damaged (" in caplog.text


def test_none_whole_is_an_error(three):
    for folder in three.folder.glob("*-*"):
        cut(folder / TENSORS)
    with pytest.raises(TrainingError, match="none of its 2 checkpoints is whole; checkpoint.resume=false"):
        three.load()


def test_another_run_is_refused_and_named(three):
    for writes in (True, False):
        with pytest.raises(
            TrainingError, match=r"another run \(train.epochs was 3, is 4\); give output"
        ) as kept:
            opened(three.folder, run=RUN | {"train.epochs": 4}, writes=writes)
    assert kept.traceback  # as a notebook keeps it: the folder is free all the same
    assert opened(three.folder).load().step == 3


def test_starting_anew_removes_them(three):
    assert opened(three.folder, resume=False).load() is None
    assert list(three.folder.glob("*-*")) == []


def test_only_one_process_writes(three):
    reader = opened(three.folder, writes=False, resume=False)
    reader.save(of_step(9))
    reader.remove()
    assert reader.load().step == 3


def test_another_format_is_refused(three):
    file = three.folder / "step-00000003" / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(TrainingError, match="of another version of lora_rec"):
        three.load()


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_full_disk_is_an_error_and_leaves_the_older_ones(three, monkeypatch, written):
    original, done = module._write_to_disk, []

    def full(path, content):
        if len(done) == written:
            path.write_bytes(content[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(path)
        original(path, content)

    monkeypatch.setattr(module, "_write_to_disk", full)
    with pytest.raises(TrainingError, match="No space left on device.; the checkpoint of step 3 is whole"):
        three.save(of_step(4))
    assert sorted(path.name for path in three.folder.glob("*-*")) == ["step-00000002", "step-00000003"]
    assert three.load().step == 3


def test_what_a_killed_process_half_wrote_is_not_read_and_goes(three):
    half = three.folder / ".writing-00000004"
    half.mkdir()
    (half / TENSORS).write_bytes(b"half")
    again = opened(three.folder)
    assert not half.exists()
    assert again.load().step == 3


def test_a_kill_while_a_step_is_saved_again_loses_nothing(three, monkeypatch):
    rename = os.rename

    def killed(source, target):
        if os.fspath(target).endswith("step-00000003") and ".writing" in os.fspath(source):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(module.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        three.save(of_step(3))
    monkeypatch.undo()
    again = opened(three.folder)
    assert again.load().step == 3
    again.save(of_step(3))
    assert sorted(path.name for path in three.folder.iterdir() if path.is_dir()) == [
        "step-00000002",
        "step-00000003",
    ]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot be written \(Not a directory\); free the disk or give"):
        opened(tmp_path / "file" / "kept")


def test_another_precision_or_another_start_is_another_run(tmp_path):
    def run(precision="fp32", start=None):
        learned = {"a": torch.nn.Parameter(torch.full((2,), start or 0.0))}
        adapter = SimpleNamespace(is_continued=start is not None, trained_parameters=lambda: learned)
        info = SimpleNamespace(fingerprint="f", precision=SimpleNamespace(key=precision))
        towers = {"user_tower": SimpleNamespace(adapter=adapter, backbone_info=info)}
        section, main = CheckpointSection(), SimpleNamespace(is_main_process=True)
        opened = open_run(str(tmp_path / "out"), section, {}, digest="d", towers=towers, accelerator=main)
        opened.remove()
        return opened.run

    assert run() == run()
    runs = [run(), run(precision="bf16"), run(start=1.0), run(start=2.0)]
    assert len({json.dumps(each) for each in runs}) == 4
