"""``deepseek demo`` and ``deepseek train``."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import deepseek
from deepseek.cli.generation import decode, sample_bytes
from deepseek.cli.report import TrainingDisplay, files_text, note, print_table, size_text
from deepseek.models import ModelSize
from deepseek.train import (
    CheckpointError,
    ConfigError,
    Corpus,
    Progress,
    RunConfig,
    TrainConfig,
    Trainer,
    bits_per_byte,
    gzip_bits_per_byte,
    learning_rate_scale,
    load_config,
    load_corpus,
    newest,
    run_lock,
    xz_bits_per_byte,
)
from deepseek.train.checkpoint import Checkpoint, is_step_folder, no_checkpoint, step_folders
from deepseek.train.data import WindowSampler
from deepseek.train.trainer import check_same_run
from deepseek.train.warm_start import check_source, source_model

_SAMPLE_BYTES = 500
_NEVER = 10**9  # steps between checkpoints in the demo, which saves at its end


class StopSignal:
    """Remembers Ctrl-C or SIGTERM, so that the step in progress ends and is saved."""

    def __init__(self) -> None:
        self.received = 0

    def __bool__(self) -> bool:
        return self.received != 0

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells report it."""
        return 128 + self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:  # the second time: now
            raise KeyboardInterrupt
        self.received = number
        note("\nstopping after this step; press Ctrl-C again to stop without saving")

    @contextmanager
    def listen(self) -> Iterator[StopSignal]:
        """Installs the handlers for the length of a with block."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Interrupted(Exception):
    """A signal ended the run after its checkpoint was saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def use_threads(threads: int | None) -> None:
    """Sets the engine's thread count, if one was asked for."""
    if threads is not None:
        deepseek.set_num_threads(threads)


def run_demo(
    seconds: float, out: Path | None, prompt: str, seed: int, overrides: list[str], as_json: bool, dry_run: bool
) -> int:
    """Trains for ``seconds``, evaluates, samples and saves; returns the exit code."""
    base = TrainConfig()
    base = replace(base, run=replace(base.run, steps=0, seconds=seconds, seed=seed, checkpoint_every=_NEVER))
    config = load_config(None, overrides, base)
    if dry_run:
        return _dry_run(config, None, as_json)
    root = _free_folder(Path("runs/demo")) if out is None else out
    if step_folders(root):
        raise CheckpointError(f"{root} already holds a run; choose another --out")
    return _train(config, root, None, "demo", prompt, as_json)


def run_train(path: Path | None, out: Path | None, overrides: list[str], as_json: bool, dry_run: bool) -> int:
    """Trains to the end of the configured run, continuing what is in the run's folder; returns the exit code.

    Args:
        path: File of settings, or the folder of a run to continue; None takes the defaults.
        out: Folder of the run; None takes ``path`` where that is a run's folder, else runs/train.
        overrides: ``section.name=value``, over those of the run that is continued.
        as_json: Print the result as JSON.
        dry_run: Print the size of the model only.
    """
    if path is not None and path.is_dir():
        if is_step_folder(path):
            raise ConfigError(f"{path} is one checkpoint; the run to continue is {path.absolute().parent}")
        if out is not None:
            raise ConfigError(f"{path} is a folder, so it is the run to continue; --out {out} names another one")
        if not step_folders(path):
            raise ConfigError(
                f"{path} is a folder without checkpoints; give a file of settings, or the folder of a run"
            )
        path, out = None, path
    root = Path("runs/train") if out is None else out
    found = newest(root)
    if found is None and step_folders(root):
        raise CheckpointError(f"{no_checkpoint(root)}; choose another --out")
    base = _with_source_model(path, overrides) if found is None else TrainConfig.from_dict(found.info["config"])
    config = load_config(path, overrides, base)
    if dry_run:
        return _dry_run(config, found, as_json)
    return _train(config, root, found, "train", None, as_json)


def _with_source_model(path: Path | None, overrides: list[str]) -> TrainConfig:
    """The defaults, with the shape of the model that ``run.init_from`` names."""
    init_from = load_config(path, overrides).run.init_from
    model = source_model(Path(init_from)) if init_from else None
    return TrainConfig() if model is None else TrainConfig(model=model)


def _note_length(trainer: Trainer, before: TrainConfig) -> None:
    """Says what a continued run has before it.

    Raises:
        ConfigError: Its length was changed to one that it has already.
    """
    old, new = before.run, trainer.config.run
    done = f"{trainer.step} steps in {trainer.elapsed:.0f} s"
    if (old.steps, old.seconds) == (new.steps, new.seconds):
        if trainer.fraction >= 1.0:
            note(f"this run has ended, after {done}; {_way_on(trainer)} extends it")
        return
    if trainer.fraction >= 1.0:
        limits = " and ".join(f"{name} = {value:g}" for name, value in _reached(trainer).items())
        raise ConfigError(f"{limits} would end this run before the {done} that it has; {_way_on(trainer)} extends it")
    was = learning_rate_scale(trainer.fraction_of(old), trainer.config.optim.warmup) * trainer.config.optim.lr
    now = learning_rate_scale(trainer.fraction, trainer.config.optim.warmup) * trainer.config.optim.lr
    note(
        f"its length changes from {_length(old)} to {_length(new)}: weights, optimizer and text go on from step "
        f"{trainer.step}, the learning rate goes on as in a run of the new length (from {was:.3g} to {now:.3g})"
    )


def _reached(trainer: Trainer) -> dict[str, float]:
    """The limits that end the run where it is."""
    run = trainer.config.run
    limits = {"run.steps": (run.steps, trainer.step), "run.seconds": (run.seconds, trainer.elapsed)}
    return {name: limit for name, (limit, now) in limits.items() if 0 < limit <= now}


def _way_on(trainer: Trainer) -> str:
    """The options that move those limits."""
    reached = _reached(trainer)
    more = " ".join(f"--set {name}=N" for name in reached)
    if "run.seconds" not in reached:
        return more
    return f"{more} (or --set run.steps=N --set run.seconds=0)"


def _length(run: RunConfig) -> str:
    limits = [f"{run.steps} steps"] * bool(run.steps) + [f"{run.seconds:g} s"] * bool(run.seconds)
    return " or ".join(limits)


def _train(
    config: TrainConfig, root: Path, found: Checkpoint | None, command: str, prompt: str | None, as_json: bool
) -> int:
    started = time.perf_counter()
    with run_lock(root):
        corpus = _check_start(config, found)
        size = config.model.size(config.run.batch)
        note(f"model: {size.parameters:,} parameters, {size.active:,} of them active per byte")
        _note_memory(size)
        trainer = Trainer(config, corpus)
        resumed = trainer.begin(root)
        if resumed is not None:
            note(f"continuing from {resumed.path}")
            _note_length(trainer, TrainConfig.from_dict(resumed.info["config"]))
        elif config.run.init_from:
            note(f"starting from the weights of {config.run.init_from}")
        begin_step = trainer.step
        with StopSignal().listen() as stop, TrainingDisplay() as display:

            def on_step(progress: Progress) -> bool:
                display.update(progress)
                return bool(stop)

            checkpoint = trainer.run(root, command, on_step)
    if stop:
        way_on = "the same command continues it" if command == "train" else "deepseek generate can use it"
        raise Interrupted(
            f"stopped at step {trainer.step}; the checkpoint is {checkpoint.path}, {way_on}", stop.exit_code
        )
    try:
        result = _measure(trainer, corpus, size, begin_step if resumed is not None else None, checkpoint, prompt)
    except KeyboardInterrupt:
        what = f"interrupted while measuring, after the last step; the checkpoint is {checkpoint.path}"
        raise Interrupted(what, 128 + signal.SIGINT) from None
    result["total_seconds"] = round(time.perf_counter() - started, 2)
    _print_result(result, root, config, as_json)
    return 0


def _check_start(config: TrainConfig, found: Checkpoint | None) -> Corpus:
    """Reads the text and checks, before a model is built, what a run would start from."""
    corpus = load_corpus(config.data.path or None, config.data.suffix, config.data.held_out)
    note(
        f"text: {corpus.name}, {size_text(len(corpus.train))} in {files_text(corpus.n_train_files)} to train on, "
        f"{size_text(len(corpus.held_out))} in {files_text(corpus.n_held_out_files)} held out"
    )
    if corpus.remark:
        note(corpus.remark)
    for remark in config.model.remarks():
        note(remark)
    WindowSampler(corpus.train, config.model.context, config.run.seed)  # refuses a text that is too short
    if found is not None:
        check_same_run(config, corpus, found)
    elif config.run.init_from:
        check_source(config.model, Path(config.run.init_from))
    return corpus


def _note_memory(size: ModelSize) -> None:
    """Says so where a run needs more memory than there is."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size.total_bytes > there:
        note(
            f"this run needs about {size_text(size.total_bytes)} of memory, the machine has {size_text(there)}; lower "
            "run.batch, model.context or the size of the model"
        )


def _measure(
    trainer: Trainer,
    corpus: Corpus,
    size: ModelSize,
    resumed_at: int | None,
    checkpoint: Checkpoint,
    prompt: str | None,
) -> dict[str, Any]:
    """Scores the model on held-out text and, with a prompt, lets it write; returns all that is told about the run."""
    config = trainer.config
    note("measuring held-out bits per byte")
    result: dict[str, Any] = {
        "steps": trainer.step,
        "train_seconds": round(trainer.elapsed, 2),
        "tokens_per_second": round(trainer.step * config.run.batch * config.model.context / trainer.elapsed),
        "parameters": size.parameters,
        "resumed_at_step": resumed_at,
        **_held_out(trainer, corpus),
        "busiest_expert": None if trainer.busiest_expert is None else round(trainer.busiest_expert, 3),
        "checkpoint": str(checkpoint.path),
    }
    if prompt is not None:
        trainer.model.eval()
        start = prompt.encode("utf-8", "surrogateescape")
        sample = sample_bytes(trainer.model, start, _SAMPLE_BYTES, 0.7, 0, 0.95, config.run.seed)
        result["sample"] = decode(start + bytes(sample))
    return result


def _held_out(trainer: Trainer, corpus: Corpus) -> dict[str, Any]:
    """Scores the first ``data.eval_bytes`` of the held-out text: the same bytes for model, gzip and xz."""
    data = corpus.held_out[: trainer.config.data.eval_bytes]
    raw = data.tobytes()
    return {
        "held_out_bytes": len(raw),
        "held_out_bits_per_byte": round(bits_per_byte(trainer.model, data), 4),
        "gzip_9_bits_per_byte": round(gzip_bits_per_byte(raw), 4),
        "xz_9_bits_per_byte": round(xz_bits_per_byte(raw), 4),
    }


def _print_result(result: dict[str, Any], root: Path, config: TrainConfig, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    rows = [
        ["this model", f"{result['held_out_bits_per_byte']:.3f}"],
        ["gzip -9", f"{result['gzip_9_bits_per_byte']:.3f}"],
        ["xz -9", f"{result['xz_9_bits_per_byte']:.3f}"],
    ]
    print_table(f"bits per byte of {result['held_out_bytes']:,} held-out bytes", rows)
    if "sample" in result:
        print(f"\nsample:\n\n{result['sample']}\n")
    print(
        f"{result['steps']} steps in {result['train_seconds']:.0f} s, {result['tokens_per_second']:,} bytes/s, "
        f"{result['total_seconds']:.0f} s in all"
    )
    print(f"checkpoint: {result['checkpoint']}")
    prompt = "" if config.data.path else " --prompt 'class Queue:'"  # of one's own text nobody knows what fits
    print(f"try: deepseek generate --checkpoint {shlex.quote(str(root))}{prompt}")


def _dry_run(config: TrainConfig, found: Checkpoint | None, as_json: bool) -> int:
    """Checks what a run would start from and prints how large it is."""
    _check_start(config, found)
    size = config.model.size(config.run.batch)
    _note_memory(size)
    if as_json:
        values = {
            "parameters": size.parameters,
            "active_parameters": size.active,
            "weights_bytes": size.weights_bytes,
            "gradients_bytes": size.weights_bytes,
            "optimizer_bytes": size.optimizer_bytes,
            "activation_bytes": size.activation_bytes,
            "total_bytes": size.total_bytes,
        }
        print(json.dumps(values))
        return 0
    rows = [
        ["parameters", f"{size.parameters:,}"],
        ["active per byte", f"{size.active:,}"],
        ["weights", size_text(size.weights_bytes)],
        ["gradients", size_text(size.weights_bytes)],
        ["optimizer", size_text(size.optimizer_bytes)],
        ["activations (estimate)", size_text(size.activation_bytes)],
        ["memory in all", size_text(size.total_bytes)],
    ]
    print_table("size", rows)
    return 0


def _free_folder(wanted: Path) -> Path:
    """Returns ``wanted``, or ``wanted-2``, ``wanted-3`` … where a run is already there."""
    folder, number = wanted, 1
    while step_folders(folder):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
