"""MultiHeadAttention without a gate is torch.nn.MultiheadAttention: outputs and gradients, padding, masks of pairs."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
import torch
from deepseek.attention import MultiHeadAttention

CASES = [pytest.param(n, marks=[] if n % 10 == 0 else [pytest.mark.slow]) for n in range(50)]


@pytest.mark.parametrize("number", CASES)
def test_multi_head_attention(number: int) -> None:
    rng = np.random.default_rng(number)
    heads, size = int(rng.integers(1, 5)), int(rng.integers(1, 9))
    width, bias = heads * size, bool(rng.integers(2))
    batch, queries, keys = int(rng.integers(1, 4)), int(rng.integers(1, 40)), int(rng.integers(1, 90))
    self_attention, causal = bool(rng.integers(2)), bool(rng.integers(2))
    keys = queries if self_attention else keys
    ours = MultiHeadAttention(width, heads, gate=False, bias=bias, causal=causal)
    theirs = torch.nn.MultiheadAttention(width, heads, bias=bias, batch_first=True)
    copy_weights(ours, theirs)

    Q = rng.normal(size=(batch, queries, width)).astype(np.float32)
    K = Q if self_attention else rng.normal(size=(batch, keys, width)).astype(np.float32)
    real = None
    if rng.random() < 0.5:
        real = rng.random((batch, keys)) < 0.8
        real[:, 0] = True  # torch gives NaN to a query that sees nothing
    a, b = [deepseek.tensor(x).requires_grad_() for x in (Q, K)], [torch.tensor(x).requires_grad_() for x in (Q, K)]
    mask = None if not causal else torch.ones(queries, keys, dtype=torch.bool).triu(1)
    if causal and real is not None:
        real = None  # ours is causal among the real keys, torch's among all
    # deepseek.tensor(x) twice: not one object, so that queries at padding are computed as torch does
    got = ours(a[0], a[1], attention_mask=None if real is None else deepseek.tensor(real))
    padding = None if real is None else torch.tensor(~real)
    want = theirs(b[0], b[1], b[1], key_padding_mask=padding, attn_mask=mask, need_weights=False)[0]
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=0, atol=1e-5)

    grad = rng.normal(size=Q.shape).astype(np.float32)
    got.backward(deepseek.tensor(grad))
    want.backward(torch.tensor(grad))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-4, atol=1e-4)
    joined = deepseek.cat([p.weight.grad for p in (ours.query_proj, ours.key_proj, ours.value_proj)])
    np.testing.assert_allclose(joined.numpy(), theirs.in_proj_weight.grad.numpy(), rtol=1e-4, atol=1e-3)


def copy_weights(ours: MultiHeadAttention, theirs: torch.nn.MultiheadAttention) -> None:
    projections = (ours.query_proj, ours.key_proj, ours.value_proj)
    with deepseek.no_grad():
        for part, weight in zip(projections, theirs.in_proj_weight.chunk(3), strict=True):
            part.weight.copy_(deepseek.tensor(weight.detach().numpy()))
        ours.out_proj.weight.copy_(deepseek.tensor(theirs.out_proj.weight.detach().numpy()))
        if theirs.in_proj_bias is not None:
            torch.nn.init.normal_(theirs.in_proj_bias)
            for part, bias in zip(projections, theirs.in_proj_bias.chunk(3), strict=True):
                part.bias.copy_(deepseek.tensor(bias.detach().numpy()))
            ours.out_proj.bias.copy_(deepseek.tensor(theirs.out_proj.bias.detach().numpy()))
