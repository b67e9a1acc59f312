"""``run.init_from``: the weights a new run starts with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deepseek
from deepseek.io import safetensors
from deepseek.models import CausalLM, CausalLMConfig, config_from_dict
from deepseek.train.checkpoint import Checkpoint, CheckpointError, find_checkpoint


def source_model(path: Path) -> CausalLMConfig | None:
    """The model of the run that ``run.init_from`` names; None where it names a file of weights alone."""
    if not path.is_dir():
        return None
    return config_from_dict(_checkpoint(path).info["config"]["model"])


def load_weights(model: CausalLM, path: Path) -> None:
    """Fills the model from a run's folder, a step-N folder or a file.

    Raises:
        CheckpointError: There are no such weights, or they do not fit the model.
    """
    state = _checkpoint(path).load("model") if path.is_dir() else _from_file(path)
    state = model.renamed(state) if isinstance(state, Mapping) else state
    misfits = _misfits(model, state)
    if misfits:
        more = f", and {len(misfits) - 1} more" if len(misfits) > 1 else ""
        raise CheckpointError(f"run.init_from: the weights of {path} do not fit the model: {misfits[0]}{more}")
    model.load_state_dict(state)


def check_source(model: CausalLMConfig, path: Path) -> None:
    """Checks, before any model is built, what ``run.init_from`` names.

    Raises:
        CheckpointError: There are no such weights, or they are of a model of another shape.
    """
    source = source_model(path)
    if source is None:
        _from_file(path)
        return
    old, new = source.to_dict(), model.to_dict()
    misfits = [f"model.{name} = {new[name]}, {path} has {old[name]}" for name in model.misfits(source)]
    if misfits:
        raise CheckpointError(
            f"run.init_from: {'; '.join(misfits)}; without such settings the new run has the shape of {path}"
        )


def _misfits(model: CausalLM, state: Any) -> list[str]:
    """What keeps ``state`` from being the weights of ``model``, one statement for each tensor."""
    if not isinstance(state, Mapping):
        return [f"it holds {type(state).__name__}, not a state_dict()"]
    wanted = model.state_dict()
    shapes = {name: getattr(value, "shape", None) for name, value in state.items()}
    return [
        *(f"{name!r} is missing" for name in wanted if name not in shapes),
        *(
            f"{name!r} has shape {shapes[name]}, not {t.shape}"
            for name, t in wanted.items()
            if name in shapes and shapes[name] != t.shape
        ),
        *(f"{name!r} is none of its tensors" for name in shapes if name not in wanted),
    ]


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
