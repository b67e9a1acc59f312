"""``deepseek generate``, and byte sampling for the demo."""

from __future__ import annotations

import codecs
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepseek.models import CausalLM, stream
from deepseek.models.generation import check_sampling
from deepseek.train import ConfigError, find_checkpoint, load_model
from deepseek.train.data import SEPARATOR

if TYPE_CHECKING:
    import numpy as np


def decode(data: bytes) -> str:
    """Returns bytes as text, with a mark for what is not UTF-8."""
    return data.decode("utf-8", errors="replace")


_LOOP = 48  # bytes that repeat a block of at most a third of them: greedy text that would go on so for ever


def _keep_to_text(tokens: list[int], logits: np.ndarray[Any, Any]) -> None:
    """Rules out the end of a file, after which no text would follow, and what is no byte in a larger vocabulary."""
    logits[SEPARATOR] = -math.inf
    logits[256:] = -math.inf


def _keep_out_of_loops(tokens: list[int], logits: np.ndarray[Any, Any]) -> None:
    """Rules out the end of a file, and the bytes that make the last ones a loop."""
    _keep_to_text(tokens, logits)
    tail = tokens[-(_LOOP - 1) :]
    if len(tail) == _LOOP - 1:
        for period in range(1, _LOOP // 3 + 1):
            if tail[period:] == tail[:-period]:
                logits[tail[-period]] = -math.inf


def sample_bytes(
    model: CausalLM, prompt: bytes, count: int, temperature: float, top_k: int, top_p: float, seed: int
) -> list[int]:
    """Returns ``count`` bytes that continue ``prompt``; an empty prompt starts a new file."""
    return list(_stream_bytes(model, prompt, count, temperature, top_k, top_p, seed))


def _stream_bytes(
    model: CausalLM, prompt: bytes, count: int, temperature: float, top_k: int, top_p: float, seed: int
) -> Iterator[int]:
    adjust = _keep_to_text if temperature > 0 else _keep_out_of_loops
    return stream(model, [SEPARATOR, *prompt], count, temperature, top_k, top_p, seed, adjust)


def run_generate(
    path: Path,
    prompt: str | None,
    prompt_file: Path | None,
    max_bytes: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
) -> int:
    """Prints the prompt and its continuation as it is generated; returns the exit code."""
    if prompt is not None and prompt_file is not None:
        raise ConfigError("give --prompt or --prompt-file, not both")
    try:
        check_sampling(temperature, top_k, top_p)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    start = prompt_file.read_bytes() if prompt_file is not None else (prompt or "").encode("utf-8", "surrogateescape")
    model = load_model(find_checkpoint(path))
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    sys.stdout.write(decoder.decode(start))
    try:
        for token in _stream_bytes(model, start, max_bytes, temperature, top_k, top_p, seed):
            sys.stdout.write(decoder.decode(bytes([token])))
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(flush=True)  # what is said about it begins on a line of its own
        raise
    sys.stdout.write(decoder.decode(b"", final=True) + "\n")
    return 0
