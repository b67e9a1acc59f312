"""Data split and order, schedule, evaluation, settings, and checkpoints that survive kills and damage."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import deepseek
import numpy as np
import pytest
from deepseek.models import LanguageModel, ModelConfig
from deepseek.train import (
    CheckpointError,
    DataError,
    TrainConfig,
    Trainer,
    WindowSampler,
    bits_per_byte,
    find_checkpoint,
    gzip_bits_per_byte,
    learning_rate_scale,
    load_corpus,
    load_model,
    newest,
    run_lock,
    save_checkpoint,
    standard_library,
    xz_bits_per_byte,
)
from deepseek.train.checkpoint import prune, step_folders

MODEL = {
    "dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "context": 16,
    "n_routed_experts": 3,
    "top_k": 2,
    "expert_dim": 8,
    "ngram_orders": [2, 3],
    "ngram_rows": 32,
    "ngram_dim": 4,
}


def config(**run) -> TrainConfig:
    values = {"model": MODEL, "data": {"eval_bytes": 200}, "run": {"steps": 10, "batch": 2, **run}}
    return TrainConfig.from_dict(values)


def write_files(root: Path, count: int = 120) -> Path:
    for number in range(count):
        folder = root / f"pkg{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"m{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 4)
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_corpus(write_files(tmp_path_factory.mktemp("text")))


def same(a: object, b: object) -> bool:
    """Whether two nested objects are equal, tensors bit for bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, deepseek.Tensor):
        return isinstance(b, deepseek.Tensor) and a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    return bool(a == b)


# --- data -------------------------------------------------------------------------------------------------------------


def test_a_file_stays_on_its_side_when_others_come_and_go(tmp_path):
    write_files(tmp_path, 40)
    before = load_corpus(tmp_path, held_out_share=0.3)
    (tmp_path / "new.py").write_text("NEW = 1\n")
    (tmp_path / "pkg0" / "m0.py").unlink()
    after = load_corpus(tmp_path, held_out_share=0.3)
    texts = [(set(c.train.tobytes().split(b"\0")), set(c.held_out.tobytes().split(b"\0"))) for c in (before, after)]
    assert not texts[0][0] & texts[1][1]
    assert not texts[0][1] & texts[1][0]
    assert before.n_train_files + before.n_held_out_files == 40
    assert before.digest != after.digest
    assert load_corpus(tmp_path, held_out_share=0.3).digest == after.digest


def test_tests_packages_and_generated_files_are_not_read(tmp_path):
    write_files(tmp_path)
    expected = load_corpus(tmp_path).digest
    for name in ("site-packages/a.py", "test/b.py", "pkg0/tests/c.py", "_sysconfigdata_x.py", "d.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert load_corpus(tmp_path).digest == expected


def test_the_standard_library_is_found_and_split():
    found = load_corpus()
    assert (standard_library() / "argparse.py").is_file()
    assert len(found.train) > 5_000_000
    assert 0.02 < len(found.held_out) / (len(found.train) + len(found.held_out)) < 0.25
    assert (standard_library() / "argparse.py").read_bytes() in found.train.tobytes() + b"\0" + found.held_out.tobytes()


def test_a_single_file_holds_out_its_end(tmp_path):
    (tmp_path / "book.txt").write_bytes(bytes(range(100)))
    found = load_corpus(tmp_path / "book.txt", held_out_share=0.1)
    assert found.train.tolist() == list(range(90))
    assert found.held_out.tolist() == list(range(90, 100))


@pytest.mark.parametrize("case", ["missing", "empty", "share"])
def test_missing_text_is_an_error(tmp_path, case):
    path = tmp_path / "nothing" if case == "missing" else tmp_path
    with pytest.raises(DataError):
        load_corpus(path, held_out_share=2.0 if case == "share" else 0.1)


def test_windows_do_not_repeat_within_an_epoch_and_targets_are_one_later():
    data = np.arange(200, dtype=np.uint8)
    sampler = WindowSampler(data, context=10, seed=3)
    epochs = []
    for _ in range(2):
        starts = []
        for _ in range(18):  # (200 - 11) // 10 windows
            inputs, targets = sampler.next_batch(1)
            x, y = inputs.numpy()[0], targets.numpy()[0]
            np.testing.assert_array_equal(x, np.arange(x[0], x[0] + 10))
            np.testing.assert_array_equal(y, x + 1)
            starts.append(int(x[0]))
        assert len(set(starts)) == 18
        assert len({start % 10 for start in starts}) == 1
        epochs.append(starts)
    assert epochs[0] != epochs[1]


def test_the_position_is_the_whole_state_of_the_sampler():
    data = np.arange(250, dtype=np.uint8)
    one, two = (WindowSampler(data, context=8, seed=1) for _ in range(2))
    for _ in range(13):
        one.next_batch(5)
    two.position = one.position
    np.testing.assert_array_equal(one.next_batch(4)[0].numpy(), two.next_batch(4)[0].numpy())
    other = WindowSampler(data, context=8, seed=2)
    other.position = 0
    two.position = 0
    assert (two.next_batch(8)[0].numpy() != other.next_batch(8)[0].numpy()).any()


def test_too_little_text_for_the_context_is_an_error():
    with pytest.raises(DataError, match="context"):
        WindowSampler(np.zeros(20, dtype=np.uint8), context=16, seed=0)


# --- evaluation -------------------------------------------------------------------------------------------------------


def _model(**changes) -> LanguageModel:
    deepseek.manual_seed(0)
    return LanguageModel(ModelConfig.from_dict({**MODEL, **changes}))


def test_a_model_that_knows_nothing_needs_eight_bits():
    model = _model()
    with deepseek.no_grad():
        model.embedding.weight.zero_()
    assert bits_per_byte(model, np.arange(100, dtype=np.uint8)) == pytest.approx(8.0, abs=1e-5)


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 24, 25, 63, 64, 100])
@pytest.mark.parametrize("context", [16, 7])
def test_every_byte_is_scored_once_with_its_context(length, context):
    model = _model(context=context)
    data = np.random.default_rng(0).integers(1, 256, length).astype(np.uint8)
    stream = [0, *data.tolist()]
    stride = context // 2
    nats = 0.0
    for index in range(length):  # the byte data[index], one at a time
        window = 0 if index < context else (index - context) // stride + 1
        inputs = stream[window * stride : index + 1]
        with deepseek.no_grad():
            logits = model(deepseek.tensor([inputs], dtype=deepseek.int64)).numpy()[0, -1].astype(np.float64)
        nats += np.log(np.exp(logits).sum()) - logits[data[index]]
    # The compared batch is padded, so rounding may differ in the last digits.
    assert bits_per_byte(model, data, batch_size=3) == pytest.approx(nats / length / np.log(2), rel=1e-5)


def test_compressors_count_their_real_output():
    data = b"import os\n" * 300
    assert gzip_bits_per_byte(data) == 8 * len(gzip.compress(data, 9)) / 3000
    tool = subprocess.run(["xz", "-9c"], input=data, capture_output=True, check=False) if _has("xz") else None
    if tool is not None:
        assert xz_bits_per_byte(data) == pytest.approx(8 * len(tool.stdout) / 3000, rel=0.05)
    assert 0 < xz_bits_per_byte(data) < 1


def _has(program: str) -> bool:
    return any(os.access(Path(folder) / program, os.X_OK) for folder in os.environ.get("PATH", "").split(os.pathsep))


@pytest.mark.parametrize(
    ("fraction", "warmup", "scale"),
    [
        (0.0, 0.1, 0.0),
        (0.05, 0.1, 0.5),
        (0.1, 0.1, 1.0),
        (0.55, 0.1, 0.5),
        (1.0, 0.1, 0.0),
        (0.0, 0.0, 1.0),
        (0.5, 0.0, 0.5),
    ],
)
def test_learning_rate_schedule(fraction, warmup, scale):
    assert learning_rate_scale(fraction, warmup) == pytest.approx(scale)


# --- training and resuming --------------------------------------------------------------------------------------------


def test_training_lowers_the_loss(corpus):
    trainer = Trainer(config(steps=60, batch=8), corpus)
    losses = [progress.bits_per_byte for progress in trainer.steps()]
    assert losses[0] == pytest.approx(8.0, abs=0.8)
    assert np.mean(losses[-5:]) < 6.0
    assert trainer.step == 60


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(corpus, tmp_path, stop):
    whole = Trainer(config(), corpus)
    losses = [progress.bits_per_byte for progress in whole.steps()]

    first = Trainer(config(), corpus)
    first_losses = [first.train_step() for _ in range(stop)]
    first.save(tmp_path, "train")
    deepseek.manual_seed(999)
    deepseek.rand(7)  # whatever happens in between
    second = Trainer(config(), corpus)
    assert second.restore_newest(tmp_path).step == stop
    second_losses = [progress.bits_per_byte for progress in second.steps()]

    assert first_losses + second_losses == losses
    assert same(second.model.state_dict(), whole.model.state_dict())
    one, two = second.state(), whole.state()
    assert one.keys() == two.keys()
    for name in ("optimizer", "step", "position", "rng"):
        assert same(one[name], two[name]), name


def test_run_saves_regularly_keeps_two_and_stops_on_request(corpus, tmp_path):
    trainer = Trainer(config(checkpoint_every=3), corpus)
    final = trainer.run(tmp_path, "train", lambda progress: False)
    assert final.step == 10
    assert [folder.name for folder in step_folders(tmp_path)] == ["step-10", "step-9"]
    stopped = Trainer(config(), corpus).run(tmp_path / "other", "train", lambda progress: progress.step == 4)
    assert stopped.step == 4


def test_a_run_limited_by_time_ends(corpus):
    trainer = Trainer(config(steps=0, seconds=0.5), corpus)
    progress = list(trainer.steps())
    assert progress[-1].fraction == 1.0
    assert trainer.elapsed >= 0.5
    assert all(a.fraction < b.fraction for a, b in itertools.pairwise(progress))


def test_other_settings_or_data_cannot_be_resumed(corpus, tmp_path):
    trainer = Trainer(config(), corpus)
    trainer.train_step()
    trainer.save(tmp_path, "train")
    with pytest.raises(CheckpointError, match=r"run\.batch = 2, not 3"):
        Trainer(config(batch=3), corpus).restore_newest(tmp_path)
    with pytest.raises(CheckpointError, match="other text"):
        Trainer(config(), dataclasses.replace(corpus, digest="0")).restore_newest(tmp_path)
    Trainer(config(checkpoint_every=7, keep=5), corpus).restore_newest(tmp_path)  # housekeeping may change


def test_a_diverged_loss_stops_the_run(corpus):
    trainer = Trainer(config(), corpus)
    with deepseek.no_grad():
        trainer.model.embedding.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        trainer.train_step()


def test_a_loaded_model_computes_what_was_saved(corpus, tmp_path):
    trainer = Trainer(config(), corpus)
    trainer.train_step()
    trainer.save(tmp_path, "train")
    model = load_model(find_checkpoint(tmp_path))
    ids = deepseek.tensor([[1, 2, 3]], dtype=deepseek.int64)
    trainer.model.eval()
    with deepseek.no_grad():
        assert same(model(ids), trainer.model(ids))


# --- checkpoint folders -----------------------------------------------------------------------------------------------


def save(root: Path, step: int):
    value = deepseek.full((5,), float(step))
    return save_checkpoint(root, step, {"model": {"w": value}, "training": {"step": step}}, {"command": "test"})


DAMAGE = {
    "flipped bit": lambda folder: _flip(folder / "model.ds"),
    "cut short": lambda folder: os.truncate(folder / "training.ds", 10),
    "file missing": lambda folder: (folder / "model.ds").unlink(),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest cut": lambda folder: os.truncate(folder / "manifest.json", 30),
    "manifest is a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "wrong step": lambda folder: _edit(folder, "step", 7),
    "wrong format": lambda folder: _edit(folder, "format", 99),
    "path leaves the folder": lambda folder: _edit(folder, "files", {"../step-1/model.ds": {"sha256": ""}}),
}


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _edit(folder: Path, key: str, value: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, key: value}))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert newest(tmp_path).step == 2
    DAMAGE[damage](tmp_path / "step-2")
    found = newest(tmp_path)
    assert found.step == 1
    np.testing.assert_array_equal(found.load("model")["w"].numpy(), np.ones(5, dtype=np.float32))
    with pytest.raises(CheckpointError, match="damaged"):
        find_checkpoint(tmp_path / "step-2")
    assert save(tmp_path, 2).step == 2  # and can be written again
    assert newest(tmp_path).step == 2


def test_pruning_counts_only_undamaged_checkpoints(tmp_path):
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
    _flip(tmp_path / "step-10" / "model.ds")
    prune(tmp_path, keep=2)
    assert [folder.name for folder in step_folders(tmp_path)] == ["step-10", "step-3", "step-2"]
    assert newest(tmp_path).step == 3


def test_an_existing_checkpoint_is_never_rewritten(tmp_path):
    save(tmp_path, 1)
    before = (tmp_path / "step-1" / "model.ds").stat()
    save(tmp_path, 1)
    after = (tmp_path / "step-1" / "model.ds").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_failed_write_leaves_nothing_under_a_step_name(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 2, {"model": {"w": deepseek.ones(2)}, "training": {"bad": object()}}, {})
    assert [folder.name for folder in step_folders(tmp_path)] == ["step-1"]
    with run_lock(tmp_path):
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "step-1"]


def test_one_writer_per_folder(tmp_path):
    with run_lock(tmp_path), pytest.raises(CheckpointError, match="in use"), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("name", ["missing", "empty", "step-3"])
def test_no_checkpoint_is_one_clear_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=name):
        find_checkpoint(tmp_path / name)


_KILLED_WRITER = """
import os, signal, sys
import deepseek
from pathlib import Path
from deepseek.train import save_checkpoint
calls, limit = 0, int(sys.argv[2])
def counted(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for name in ("fsync", "rename", "mkdir", "open"):
    setattr(os, name, counted(getattr(os, name)))
deepseek.save = counted(deepseek.save)
for step in (1, 2):
    save_checkpoint(Path(sys.argv[1]), step, {"model": {"w": deepseek.full((9,), float(step))}}, {})
    print(step, flush=True)
"""


def test_a_kill_at_any_point_loses_no_checkpoint_that_was_reported_saved(tmp_path):
    finished = False
    killed = 0
    for limit in range(1, 100):
        root = tmp_path / str(limit)
        done = subprocess.run(
            [sys.executable, "-c", _KILLED_WRITER, str(root), str(limit)], capture_output=True, text=True, check=False
        )
        reported = [int(line) for line in done.stdout.split()]
        found = newest(root)
        assert (found.step if found else 0) >= max(reported, default=0)
        if found is not None:
            assert found.load("model")["w"].numpy()[0] == found.step
        if done.returncode == 0:
            finished = True
            break
        assert done.returncode == -9, done.stderr
        killed += 1
    assert finished
    assert killed >= 12


def test_the_experts_load_is_counted_in_windows(corpus):
    trainer = Trainer(config(steps=101), corpus)
    shown = [progress.experts for progress in trainer.steps()]
    assert shown[:49] == [None] * 49
    assert [record.step for record in trainer.utilisation.history] == [50, 100]
    (layer,) = trainer.utilisation.history[0].layers.values()
    assert layer.slots == 50 * 2 * 16 * 2  # steps, batch, context, experts a token
    assert shown[49] == shown[98] == layer.max_over_mean >= 1.0
    dense = TrainConfig.from_dict({"model": {**MODEL, "ffn": "dense"}, "run": {"steps": 2}})
    assert Trainer(dense, corpus).utilisation is None
