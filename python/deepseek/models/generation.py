"""Sampling from a language model, one token after another, with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import deepseek
from deepseek import Tensor

if TYPE_CHECKING:
    import numpy as np

    from deepseek.models.causal_lm import CausalLM


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """Raises ValueError for sampling settings outside their range."""
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 (greedy) or above, got {temperature}")
    if top_k < 0:
        raise ValueError(f"top_k must be 0 (all tokens) or above, got {top_k}")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")


def choose(logits: np.ndarray[Any, Any], rng: np.random.Generator, temperature: float, top_k: int, top_p: float) -> int:
    """Draws one token from logits [vocab]; temperature 0 takes the most likely (the lowest id among equals)."""
    import numpy as np

    if temperature == 0.0:
        return int(logits.argmax())
    # Most likely first; the stable sort makes the order of equal logits the order of their ids.
    order = np.argsort(-logits, kind="stable")
    scaled = (logits[order].astype(np.float64) - float(logits.max())) / temperature
    weights = np.exp(scaled)
    if top_k:
        weights[top_k:] = 0.0
    if top_p < 1.0:
        before = np.cumsum(weights) - weights  # mass of all more likely tokens
        weights[before >= top_p * weights.sum()] = 0.0
    cumulative = np.cumsum(weights)
    place = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return int(order[min(place, int(np.count_nonzero(weights)) - 1)])


def stream(
    model: CausalLM,
    prompt: list[int],
    max_new_tokens: int,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    adjust: Callable[[list[int], np.ndarray[Any, Any]], None] | None = None,
) -> Iterator[int]:
    """Yields ``max_new_tokens`` tokens that continue ``prompt``; the same arguments give the same tokens.

    Text may run on past ``model.config.context``: a model whose caches hold a window goes on with it, others read the
    last half of the context anew when it is full.

    Args:
        model: The model; it is put into eval mode.
        prompt: At least one token id; only the last ``model.config.context`` are read.
        max_new_tokens: How many tokens to yield.
        temperature: Divides the logits; 0 is greedy.
        top_k: Keep only the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that together reach this probability.
        seed: Of the draw; the global random state is not touched.
        adjust: Called with all tokens so far and the logits [vocab] of the next one, which it may change.

    Raises:
        ValueError: A setting is outside its range or a prompt token is not in the vocabulary.
    """
    import numpy as np

    check_sampling(temperature, top_k, top_p)
    if not prompt or min(prompt) < 0 or max(prompt) >= model.config.vocab_size:
        raise ValueError(f"the prompt must be one or more token ids below {model.config.vocab_size}")
    model.eval()
    rng = np.random.Generator(np.random.Philox(key=seed))
    context = model.config.context
    cache = model.new_cache()
    pending = prompt[-context:]
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        if not cache.runs_on and cache.position + len(pending) > context:
            cache = model.new_cache()
            pending = tokens[-(context // 2 + 1) :]
        with deepseek.no_grad():
            logits = model(deepseek.tensor([pending], dtype=deepseek.int64), cache)
        row = logits[0, -1].numpy()
        if adjust is not None:
            adjust(tokens, row)
        token = choose(row, rng, temperature, top_k, top_p)
        pending = [token]
        tokens.append(token)
        yield token


def generate(model: CausalLM, tokens: Tensor, max_new_tokens: int, **sampling: Any) -> Tensor:
    """Returns tokens int64 [1, time] followed by the sampled continuation: [1, time + max_new_tokens]."""
    if tokens.dim() != 2 or tokens.shape[0] != 1:
        raise ValueError(f"generate needs tokens of shape [1, time], got {list(tokens.shape)}")
    prompt: list[int] = tokens[0].tolist()
    new = list(stream(model, prompt, max_new_tokens, **sampling))
    return deepseek.tensor([prompt + new], dtype=deepseek.int64)
