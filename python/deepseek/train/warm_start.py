"""``run.init_from``: the weights a new run starts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deepseek
from deepseek.io import safetensors
from deepseek.models import LanguageModel, ModelConfig
from deepseek.train.checkpoint import Checkpoint, CheckpointError, find_checkpoint


def source_model(path: Path) -> ModelConfig | None:
    """The model of the run that ``run.init_from`` names; None where it names a file of weights alone."""
    if not path.is_dir():
        return None
    return ModelConfig.from_dict(_checkpoint(path).info["config"]["model"])


def load_weights(model: LanguageModel, path: Path) -> None:
    """Fills the model from a run's folder, a step-N folder or a file.

    Raises:
        CheckpointError: There are no such weights, or they do not fit the model.
    """
    state = _checkpoint(path).load("model") if path.is_dir() else _from_file(path)
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"run.init_from: the weights of {path} do not fit the model: {error}") from None


def _checkpoint(path: Path) -> Checkpoint:
    try:
        return find_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"run.init_from: {error}") from None


def _from_file(path: Path) -> Any:
    if not path.exists():
        raise CheckpointError(f"run.init_from: {path} does not exist")
    try:
        return safetensors.load_file(path) if path.suffix == ".safetensors" else deepseek.load(str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(f"run.init_from: {error}") from None
