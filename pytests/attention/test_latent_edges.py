"""Multi-head latent attention at its edges: bad input, no token, one token, nothing to see."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from deepseek.attention import DenseCache, IndexedLatentCache, LatentCache
from latent_cases import INDEX, KINDS, make, reference, tokens

BAD = {
    "no heads": (lambda: make(num_attention_heads=0), ValueError, "num_attention_heads must be positive, got 0"),
    "a negative rank": (lambda: make(kv_lora_rank=-2), ValueError, "kv_lora_rank must be positive, got -2"),
    "odd rope": (lambda: make(qk_rope_head_dim=3), ValueError, "dim must be even and positive, got 3"),
    "indexer without rank": (lambda: make(q_lora_rank=None, **INDEX), ValueError, "makes its queries of q_lora_rank"),
    "no keys to select": (lambda: make(**{**INDEX, "index_topk": 0}), ValueError, "index_topk must be positive, got 0"),
    "unknown scaling": (lambda: make(rope_scaling={"type": "ntk"}), NotImplementedError, "'ntk' is not implemented"),
    "incomplete scaling": (lambda: make(rope_scaling={"type": "yarn"}), ValueError, "needs the setting 'factor'"),
    "an incomplete factor": (
        lambda: make(rope_scaling={"type": "yarn", "mscale_all_dim": 1}),
        ValueError,
        "needs the setting 'factor'",
    ),
    "another width": (lambda: make()(deepseek.zeros(1, 2, 3)), RuntimeError, r"must be \[batch, time, 20\]"),
    "another cache": (lambda: make()(tokens(), cache=DenseCache()), TypeError, "takes a LatentCache, got DenseCache"),
    "no index keys": (
        lambda: make(**INDEX)(tokens(), cache=LatentCache()),
        TypeError,
        "takes a IndexedLatentCache, got LatentCache",
    ),
    "index keys": (
        lambda: make()(tokens(), cache=IndexedLatentCache()),
        TypeError,
        "takes a LatentCache, got IndexedLatentCache",
    ),
    "a mask without heads": (
        lambda: make()(tokens(), attention_mask=deepseek.ones(2, 14, 14, dtype=deepseek.bool)),
        RuntimeError,
        r"or pairs \[2 or 1, 3 or 1, 14, 14\], got \[2, 14, 14\]",
    ),
    "a cache without causality": (
        lambda: make(causal=False)(tokens(), cache=LatentCache()),
        ValueError,
        "a cache needs causal=True",
    ),
    "a mask of another shape": (
        lambda: make()(tokens(), attention_mask=deepseek.ones(2, 9)),
        RuntimeError,
        r"attention_mask must be \[2, 14\], got \[2, 9\]",
    ),
    "pairs of another shape": (
        lambda: make()(tokens(), attention_mask=deepseek.ones(2, 1, 14, 9, dtype=deepseek.bool)),
        RuntimeError,
        r"\[2, 1, 14, 9\]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case: str) -> None:
    call, kind, text = BAD[case]
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("kind", ["plain", "indexer"])
def test_no_token_one_token_and_nothing_to_see(kind: str, absorb: bool) -> None:
    module = make(absorb=absorb, **KINDS[kind])
    assert list(module(tokens(2, 0)).shape) == [2, 0, 20]
    assert list(module(deepseek.zeros(0, 3, 20)).shape) == [0, 3, 20]
    one = tokens(1, 1)
    np.testing.assert_allclose(module(one)[0].detach().numpy(), reference(module, one[0], KINDS[kind]), atol=1e-6)
    assert not module(one, attention_mask=deepseek.zeros(1, 1, dtype=deepseek.bool)).any()
    if kind == "plain":
        blind = module(tokens(), attention_mask=deepseek.zeros(1, 1, 14, 14, dtype=deepseek.bool))
        assert not blind.any()  # no bias: a query that sees nothing gives zeros
