"""The training loop: model, optimizer, schedule, data order and everything needed to resume bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepseek
from deepseek import nn, optim
from deepseek.models import CausalLM
from deepseek.moe import ExpertUtilisation
from deepseek.train.checkpoint import Checkpoint, CheckpointError, newest, prune, save_checkpoint
from deepseek.train.config import OptimConfig, RunConfig, TrainConfig
from deepseek.train.data import Corpus, WindowSampler
from deepseek.train.settings import fixed_because
from deepseek.train.warm_start import load_weights


@dataclass(frozen=True)
class Progress:
    """What happened in one step.

    Attributes:
        step: Steps done since the start of the run.
        fraction: Done share of the run, 0 to 1.
        bits_per_byte: Training loss of this step.
        tokens: Bytes trained on in this step.
        seconds: Duration of this step.
        seconds_left: Estimate for the rest of the run.
        experts: Load of the busiest expert divided by the mean, in the worst layer and the last window that was closed;
            None before one was, and without experts.
    """

    step: int
    fraction: float
    bits_per_byte: float
    tokens: int
    seconds: float
    seconds_left: float
    experts: float | None = None


def learning_rate_scale(fraction: float, warmup: float) -> float:
    """Factor on the learning rate at ``fraction`` of the run: up during warm-up, then linearly down to 0."""
    rising = fraction / warmup if warmup > 0 else 1.0
    return max(0.0, min(rising, (1.0 - fraction) / (1.0 - warmup)))


def make_optimizer(model: CausalLM, config: OptimConfig) -> optim.AdamW:
    """AdamW in up to three groups: what is decayed, what is not, and tables with a rate of their own."""
    named = dict(model.named_parameters())
    rates = ((config.lr, config.weight_decay), (config.lr, 0.0), (config.table_lr, 0.0))
    groups = [
        {"params": [named[name] for name in names], "peak_lr": rate, "weight_decay": decay}
        for names, (rate, decay) in zip(model.parameter_groups(named.items()), rates, strict=False)
    ]
    return optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2))


_WINDOW = 50  # steps that the experts' load is counted over


class Trainer:
    """One training run. A trainer restored from a checkpoint goes on exactly as the one that wrote it.

    Attributes:
        utilisation: Which experts are used, in windows of 50 steps; None without experts.
    """

    def __init__(self, config: TrainConfig, corpus: Corpus) -> None:
        self.config = config
        self.corpus = corpus
        deepseek.manual_seed(config.run.seed)
        self.model = config.model.build()
        self.optimizer = make_optimizer(self.model, config.optim)
        self.sampler = WindowSampler(corpus.train, config.model.context, config.run.seed)
        self.utilisation = ExpertUtilisation(self.model, history=1000) if config.model.routed else None
        self.step = 0
        self.elapsed = 0.0  # seconds spent in steps, over all parts of the run

    @property
    def fraction(self) -> float:
        """Done share of the run, by steps or by time, whichever is further."""
        return self.fraction_of(self.config.run)

    def fraction_of(self, run: RunConfig) -> float:
        """What share of such a run is done."""
        by_steps = self.step / run.steps if run.steps else 0.0
        by_time = self.elapsed / run.seconds if run.seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def train_step(self) -> float:
        """Does one optimizer step; returns the loss in bits per byte.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        scale = learning_rate_scale(self.fraction, self.config.optim.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * scale
        self.model.begin_step(self.step)
        inputs, targets = self.sampler.next_batch(self.config.run.batch)
        loss = self.model.loss(inputs, targets)
        value = float(loss.item())
        extra = self.model.auxiliary_loss()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value} at step {self.step + 1}; lower optim.lr")
        self.optimizer.zero_grad()
        (loss if extra is None else loss + extra).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step()
        self.model.end_step()
        self.step += 1
        if self.utilisation is not None and self.step % _WINDOW == 0:
            self.utilisation.update(self.step)
        return value / math.log(2.0)

    def steps(self) -> Iterator[Progress]:
        """Trains to the end of the run, yielding after every step."""
        self.model.train()
        tokens = self.config.run.batch * self.config.model.context
        first_fraction, first_elapsed = self.fraction, self.elapsed
        while self.fraction < 1.0:
            begin = time.perf_counter()
            bits = self.train_step()
            seconds = time.perf_counter() - begin
            self.elapsed += seconds
            gained = self.fraction - first_fraction
            rate = (self.elapsed - first_elapsed) / gained if gained > 0 else 0.0
            left = rate * (1.0 - self.fraction)
            yield Progress(self.step, self.fraction, bits, tokens, seconds, left, self.busiest_expert)

    @property
    def busiest_expert(self) -> float | None:
        """Its load divided by the mean, see :class:`Progress`."""
        if self.utilisation is None or not self.utilisation.history:
            return None
        return max(layer.max_over_mean for layer in self.utilisation.history[-1].layers.values())

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything besides the weights that decides how training goes on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "position": self.sampler.position,
            "rng": deepseek.get_rng_state(),
        }

    def save(self, root: Path, command: str) -> Checkpoint:
        """Writes ``root/step-N`` and removes older checkpoints beyond ``run.keep``."""
        info = {
            "command": command,
            "version": deepseek.__version__,
            "config": self.config.to_dict(),
            "data": {"name": self.corpus.name, "digest": self.corpus.digest},
        }
        parts = {"model": self.model.state_dict(), "training": self.state()}
        saved = save_checkpoint(root, self.step, parts, info)
        prune(root, self.config.run.keep)
        return saved

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from ``checkpoint``.

        Raises:
            CheckpointError: It was made with other settings or other data.
        """
        check_same_run(self.config, self.corpus, checkpoint)
        weights, training = checkpoint.load("model"), checkpoint.load("training")
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(self.model.renamed_optimizer(training["optimizer"], weights))
        self.step = training["step"]
        self.model.begin_step(self.step)
        self.elapsed = training["elapsed"]
        self.sampler.position = training["position"]
        deepseek.set_rng_state(training["rng"])

    def begin(self, root: Path) -> Checkpoint | None:
        """Continues from the newest verified checkpoint below ``root``, or else takes the weights of ``run.init_from``.

        Returns:
            The checkpoint it continues from; None if the run is a new one.
        """
        checkpoint = self.restore_newest(root)
        if checkpoint is None and self.config.run.init_from:
            load_weights(self.model, Path(self.config.run.init_from))
        return checkpoint

    def restore_newest(self, root: Path) -> Checkpoint | None:
        """Continues from the newest verified checkpoint below ``root``; None if there is none."""
        checkpoint = newest(root)
        if checkpoint is not None:
            self.restore(checkpoint)
        return checkpoint

    def run(self, root: Path, command: str, on_step: Callable[[Progress], bool]) -> Checkpoint:
        """Trains to the end with regular checkpoints; returns the last one.

        Args:
            root: Folder of the run.
            command: Stored in the manifest.
            on_step: Called after every step; True stops the run after a checkpoint.
        """
        for progress in self.steps():
            stop = on_step(progress)
            if stop:
                break
            if self.step % self.config.run.checkpoint_every == 0 and progress.fraction < 1.0:
                self.save(root, command)
        return self.save(root, command)


def check_same_run(config: TrainConfig, corpus: Corpus, checkpoint: Checkpoint) -> None:
    """Checks that a run of ``config`` on ``corpus`` can go on from ``checkpoint``.

    Raises:
        CheckpointError: It was made with other settings or other data.
    """
    stored = TrainConfig.from_dict(checkpoint.info.get("config", {})).to_dict()
    for section, settings in config.to_dict().items():
        for name, value in settings.items():
            before, reason = stored[section][name], fixed_because(f"{section}.{name}")
            if before != value and reason:
                raise CheckpointError(
                    f"{checkpoint.path} was trained with {section}.{name} = {before!r}, not {value!r}, and cannot go "
                    f"on with another: {reason}; use the same settings or another --out, where --set "
                    f"run.init_from={checkpoint.path.parent} starts a new run from these weights"
                )
    if checkpoint.info.get("data", {}).get("digest") != corpus.digest:
        raise CheckpointError(
            f"{checkpoint.path} was trained on other text than data.path, {corpus.name}, holds now; give the same text "
            "or another --out"
        )


def load_model(checkpoint: Checkpoint) -> CausalLM:
    """Returns the checkpoint's model, ready to generate (in eval mode)."""
    config = TrainConfig.from_dict(checkpoint.info["config"])
    model = config.model.build()
    model.load_state_dict(checkpoint.load("model"))
    model.begin_step(checkpoint.step)
    model.eval()
    return model
