"""Several writers of checkpoints below one folder. More on checkpoints: test_train.py and test_checkpoint_kill.py."""

import multiprocessing
import os
import signal
from pathlib import Path

import deepseek
import pytest
from deepseek.train import checkpoint, save_checkpoint
from deepseek.train.checkpoint import newest, run_lock, step_folders


def save(root: Path, step: int, value: float = 0.0):
    return save_checkpoint(root, step, {"model": {"w": deepseek.full((5,), value)}}, {"value": value})


class Killed:
    """Ends the process in the middle of a save."""

    def items(self):
        os.kill(os.getpid(), signal.SIGKILL)


def killed_save(root: Path) -> None:
    save_checkpoint(root, 7, Killed(), {})


def leave_half_a_checkpoint(root: Path) -> Path:
    process = multiprocessing.get_context("fork").Process(target=killed_save, args=(root,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = root.glob(".tmp-step-7-*")
    return left


@pytest.mark.parametrize("clear", [lambda root: save(root, 1), lambda root: run_lock(root).__enter__()])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, clear):
    left = leave_half_a_checkpoint(tmp_path)
    clear(tmp_path)
    assert not left.exists()


def test_a_writer_leaves_other_living_writers_alone(tmp_path, monkeypatch):
    write = checkpoint._write

    def write_while_another_saves(folder, *rest):
        monkeypatch.undo()
        left = leave_half_a_checkpoint(tmp_path)
        save(tmp_path, 1)
        assert folder.is_dir()
        assert left.is_dir()  # nobody knows yet which of the two is alive
        return write(folder, *rest)

    monkeypatch.setattr(checkpoint, "_write", write_while_another_saves)
    save(tmp_path, 2)
    save(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == ["step-1", "step-2", "step-3"]


def test_of_two_writers_of_a_step_the_faster_wins(tmp_path, monkeypatch):
    write = checkpoint._write

    def write_slowly(folder, *rest):
        monkeypatch.undo()
        assert save(tmp_path, 2, value=1.0).info["value"] == 1.0
        return write(folder, *rest)

    monkeypatch.setattr(checkpoint, "_write", write_slowly)
    assert save(tmp_path, 2, value=2.0).info["value"] == 1.0
    assert newest(tmp_path).load("model")["w"].tolist() == [1.0] * 5
    assert os.listdir(tmp_path) == ["step-2"]
    assert len(step_folders(tmp_path)) == 1
