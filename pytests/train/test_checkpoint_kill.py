"""Saving, killed before each of its system calls or failing in each of them: the old data or all of the new, no less.

A kill keeps what the page cache holds, so it says nothing about fsync. The order of the fsyncs is read from the log of
system calls instead.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import deepseek
import pytest
import strace_runner
from deepseek.io import safetensors
from deepseek.train import save_checkpoint
from deepseek.train.checkpoint import prune, step_folders, verify
from strace_runner import FAILED, SAVED, Point, Server

pytestmark = pytest.mark.nosan
strace_runner.require_strace()
SIGKILL = -9


# --- what is saved, and what has to be found afterwards ---------------------------------------------------------------


N = 4000  # a few pages, so that a disk can be full in the middle of a tensor
DAMAGED_SIZE = 100
NEW = "runs/new"


def is_all(tensor: deepseek.Tensor, value: float) -> bool:
    return tensor.shape == (N,) and bool((tensor == value).all())


def parts(step: int) -> dict[str, object]:
    return {
        "model": {"w": deepseek.full((N,), float(step)), "b": deepseek.full((N,), step, dtype=deepseek.int64)},
        "training": {"step": step, "moments": [deepseek.full((N,), step / 2)]},
    }


def checkpoint_steps(root: Path) -> set[int]:
    """Steps of the checkpoints below `root`. What has a step's name has to be whole, or be what damaged_step() made."""
    found = set()
    for folder in step_folders(root):
        checkpoint = verify(folder)
        if checkpoint is None:
            assert (folder / "model.ds").stat().st_size == DAMAGED_SIZE, folder
            continue
        step, model, training = checkpoint.step, checkpoint.load("model"), checkpoint.load("training")
        assert is_all(model["w"], step)
        assert is_all(model["b"], step)
        assert is_all(training["moments"][0], step / 2)
        assert training["step"] == step
        found.add(step)
    return found


def save_step_2(root: Path) -> None:
    """As Trainer.save does."""
    save_checkpoint(root, 2, parts(2), {})
    prune(root, keep=1)


def one_step(root: Path) -> None:
    save_checkpoint(root, 1, parts(1), {})


def damaged_step(root: Path) -> None:
    one_step(root)
    save_checkpoint(root, 2, parts(2), {})
    os.truncate(root / "step-2" / "model.ds", DAMAGED_SIZE)


def save_first_step(root: Path) -> None:
    save_checkpoint(root / NEW, 2, parts(2), {})


def save_object(root: Path) -> None:
    deepseek.save({"step": 2, "w": deepseek.full((N,), 2.0)}, root / "f")


def save_tensors(root: Path) -> None:
    safetensors.save_file({"w": deepseek.full((N,), 2.0)}, root / "f")


def old_file(root: Path) -> None:
    safetensors.save_file({"w": deepseek.full((N,), 1.0)}, root / "f")


def file_step(root: Path) -> set[int]:
    """The step of the file's content; empty without a file."""
    if not (root / "f").exists():
        return set()
    values = safetensors.load_file(root / "f")
    (tensor,) = values.values()
    step = int(tensor[0].item())
    assert is_all(tensor, step)
    return {step}


def warm_up() -> None:
    with TemporaryDirectory() as folder:
        save_step_2(Path(folder))


@dataclass(frozen=True)
class Scenario:
    """`prepare` makes the old state, `save` (by name, it runs elsewhere) step 2; `steps` says what is there."""

    prepare: Callable[[Path], None]
    save: str
    steps: Callable[[Path], set[int]]
    allowed: tuple[set[int], ...]  # steps after an interrupted save
    left: list[str]  # all that is in the folder after a whole one

    def check(self, root: Path, code: int) -> None:
        """Is nothing lost after a save that ended with `code`, and does the next one succeed and clear up?"""
        steps = self.steps(root)
        assert steps in self.allowed, steps
        if code == SAVED:
            assert 2 in steps
        if code == FAILED:  # an exception had time to clear up
            assert leftovers(root) == []
        globals()[self.save](root)
        assert self.steps(root) == {2}
        assert sorted(os.listdir(root)) == self.left
        assert leftovers(root) == []


def leftovers(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if path.name.startswith(".tmp-") or path.name.endswith(".tmp")]


def nothing(root: Path) -> None:
    pass


SCENARIOS = {
    "checkpoint": Scenario(one_step, "save_step_2", checkpoint_steps, ({1}, {1, 2}, {2}), ["step-2"]),
    "over a damaged one": Scenario(damaged_step, "save_step_2", checkpoint_steps, ({1}, {1, 2}, {2}), ["step-2"]),
    "first": Scenario(nothing, "save_first_step", lambda root: checkpoint_steps(root / NEW), (set(), {2}), ["runs"]),
    "deepseek.save": Scenario(old_file, "save_object", file_step, ({1}, {2}), ["f"]),
    "save_file": Scenario(old_file, "save_tensors", file_step, ({1}, {2}), ["f"]),
    "new file": Scenario(nothing, "save_object", file_step, (set(), {2}), ["f"]),
}
QUICK = ["checkpoint", "deepseek.save"]  # the slow tests take all, and all system calls
CHANGES = {"mkdir", "write", "fsync", "rename", "unlink", "unlinkat", "rmdir", "fchmod"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(__name__)
    yield server
    server.close()


@pytest.fixture(scope="module")
def points(server, tmp_path_factory) -> dict[str, list[Point]]:
    """The system calls of each scenario."""
    found = {}
    for name, scenario in SCENARIOS.items():
        root, log = tmp_path_factory.mktemp("points"), tmp_path_factory.mktemp("log") / "log"
        scenario.prepare(root)
        assert server.run(scenario.save, root, log) == SAVED
        scenario.check(root, SAVED)
        found[name] = strace_runner.points(log)
    return found


def run_points(server: Server, folder: Path, scenario: Scenario, wanted: list[Point], fault: str) -> list[int]:
    """Exit codes of saves that suffer `fault` at one of the points each."""
    codes = []
    for point in wanted:
        root = folder / str(point).replace(" ", "-")
        root.mkdir()
        scenario.prepare(root)
        codes.append(server.run(scenario.save, root, folder / "log", f"{point.name}:{fault}:when={point.number}"))
        try:
            scenario.check(root, codes[-1])
        except BaseException as error:
            error.add_note(f"{fault} at {point}, exit code {codes[-1]}; log: {folder / 'log'}")
            raise
        shutil.rmtree(root)
    return codes


# --- interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_killed_before_a_system_call_that_changes_something(server, points, tmp_path, name):
    wanted = [point for point in points[name] if point.name in CHANGES]
    assert set(run_points(server, tmp_path, SCENARIOS[name], wanted, "signal=KILL")) == {SIGKILL}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_before_every_system_call(server, points, tmp_path, name):
    codes = run_points(server, tmp_path, SCENARIOS[name], points[name], "signal=KILL")
    assert set(codes) == {SIGKILL}
    assert len(codes) >= 18


@pytest.mark.parametrize("name", QUICK)
def test_no_space_for_a_system_call_that_changes_something(server, points, tmp_path, name):
    wanted = [point for point in points[name] if point.name in {"mkdir", "write", "fsync", "rename"}]
    codes = run_points(server, tmp_path, SCENARIOS[name], wanted, "error=ENOSPC")
    assert set(codes) == {FAILED}


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EACCES"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_errors_in_every_system_call(server, points, tmp_path, name, error):
    codes = run_points(server, tmp_path, SCENARIOS[name], points[name], f"error={error}")
    assert set(codes) == {SAVED, FAILED}


# --- short writes -----------------------------------------------------------------------------------------------------


def saved_or_failed(scenario: Scenario, root: Path) -> int:
    try:
        globals()[scenario.save](root)
    except OSError as error:
        assert error.errno in (errno.EFBIG, errno.ENOSPC), error
        return FAILED
    return SAVED


@pytest.mark.parametrize("name", SCENARIOS)
def test_files_that_may_not_grow(tmp_path, name):
    """A write that meets the limit is short, the next one fails."""
    scenario, before, codes = SCENARIOS[name], resource.getrlimit(resource.RLIMIT_FSIZE), []
    for limit in (0, 100, 500, 5000, 4 * N, 4 * N + 400, 8 * N, 16 * N):
        root = tmp_path / str(limit)
        root.mkdir()
        scenario.prepare(root)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            codes.append(saved_or_failed(scenario, root))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        scenario.check(root, codes[-1])
    assert codes[0] == FAILED
    assert codes[-1] == SAVED


def on_full_disk(root: Path) -> None:
    """Every scenario with 0, 1, 2, ... pages free on the file system of `root`."""
    for name, scenario in SCENARIOS.items():
        codes = []
        for free in range(30):
            folder = root / f"{name} {free}"
            folder.mkdir()
            scenario.prepare(folder)
            with open(root / "filler", "wb") as filler:
                status = os.statvfs(root)
                filler.write(bytes((status.f_bavail - free) * status.f_bsize))
            codes.append(saved_or_failed(scenario, folder))
            (root / "filler").unlink()
            scenario.check(folder, codes[-1])
            shutil.rmtree(folder)
        assert codes[0] == FAILED, name
        assert codes[-1] == SAVED, name


def test_a_full_disk(tmp_path):
    mount = 'mount -t tmpfs -o size=512k none "$0" && exec "$@"'
    inside = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-c", mount, tmp_path]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    code = f"import sys, pathlib, {__name__} as m; m.on_full_disk(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([*inside, sys.executable, "-c", code, tmp_path], check=True, env=environment)


# --- fsync ------------------------------------------------------------------------------------------------------------


def unsynced_commits(log: list[tuple[str, str]], root: Path) -> list[str]:
    """What a power failure could lose: each rename to a visible name needs all below it on disk before and the folder
    after, and an old checkpoint may only go when the new one is on disk."""
    problems: list[str] = []
    pending: set[str] = set()  # files whose content, folders whose entries may not be on disk
    committed: set[str] = set()  # folders with such a rename since their last fsync
    for name, rest in log:
        if " = -1 " in rest:
            continue
        paths = re.findall(r'"([^"]*)"', rest)
        descriptor = re.match(r"\d+<([^>]*)>", rest)
        if name == "write":
            pending.add(descriptor[1])
        elif name == "fsync":
            pending.discard(descriptor[1])
            committed.discard(descriptor[1])
        elif name == "mkdir" or (name == "openat" and "O_CREAT" in rest):
            pending.add(os.path.dirname(paths[0]))
        elif name == "rename":
            source, target = paths
            folder = os.path.dirname(target)
            if os.path.basename(target).startswith("."):  # a removal
                problems += [f"{source} goes before {path} is on disk" for path in committed]
                continue
            inside = {path for path in pending if path == source or path.startswith(f"{source}/")}
            problems += [f"{target} appears before {path} is on disk" for path in inside]
            pending = pending - inside | {folder}
            committed.add(folder)
    return problems + [f"{path} is not on disk at the end" for path in pending if path.startswith(str(root))]


@pytest.mark.parametrize("name", SCENARIOS)
def test_all_is_synced_in_order(server, tmp_path, name):
    root, scenario = tmp_path / "root", SCENARIOS[name]
    root.mkdir()
    scenario.prepare(root)
    assert server.run(scenario.save, root, tmp_path / "log") == SAVED
    log = strace_runner.calls(tmp_path / "log")
    assert unsynced_commits(log, root) == []
    synced = {rest for call, rest in log if call == "fsync"}
    assert len(synced) >= 2
    for path in {rest.split("<")[1] for rest in synced}:  # would it be noticed?
        assert unsynced_commits([x for x in log if x[0] != "fsync" or f"<{path}" not in x[1]], root)
