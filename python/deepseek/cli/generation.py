"""``deepseek generate``, and byte sampling for the demo."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from deepseek.models import LanguageModel, stream
from deepseek.models.generation import check_sampling
from deepseek.train import ConfigError, find_checkpoint, load_model
from deepseek.train.data import SEPARATOR


def decode(data: bytes) -> str:
    """Returns bytes as text, with a mark for what is not UTF-8."""
    return data.decode("utf-8", errors="replace")


def sample_bytes(
    model: LanguageModel, prompt: bytes, count: int, temperature: float, top_k: int, top_p: float, seed: int
) -> list[int]:
    """Returns ``count`` bytes that continue ``prompt``; an empty prompt starts a new file."""
    tokens = [SEPARATOR, *prompt]
    return list(stream(model, tokens, count, temperature, top_k, top_p, seed))


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
    for token in stream(model, [SEPARATOR, *start], max_bytes, temperature, top_k, top_p, seed):
        sys.stdout.write(decoder.decode(bytes([token])))
        sys.stdout.flush()
    sys.stdout.write(decoder.decode(b"", final=True) + "\n")
    return 0
