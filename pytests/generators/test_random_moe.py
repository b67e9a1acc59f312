"""DeepseekMoE of all sorts against plain NumPy: scores, groups, biases, tables, clamps, padding; in one call and in
chunks of tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import deepseek
import numpy as np
from cases import cases
from deepseek.moe import DeepseekMoE
from moe.moe_reference import Rule, mixture, route

USUAL = 150


def draw_layer(draw: np.random.Generator) -> DeepseekMoE:
    groups = int(draw.choice([1, 1, 2, 3, 4]))
    size = int(draw.integers(2, 6))
    kept = int(draw.integers(1, groups + 1))
    return DeepseekMoE(
        int(draw.integers(1, 40)),
        int(draw.integers(1, 40)),
        groups * size,
        int(draw.integers(1, min(kept * size, 6) + 1)),
        n_shared_experts=int(draw.integers(0, 3)),
        n_group=groups,
        topk_group=kept,
        topk_method=str(draw.choice(["greedy", "group_limited_greedy", "noaux_tc"])),
        scoring_func=str(draw.choice(["softmax", "sigmoid", "sqrtsoftplus"])),
        norm_topk_prob=bool(draw.integers(2)),
        routed_scaling_factor=float(draw.choice([1.0, 2.5, 16.0])),
        swiglu_limit=None if draw.integers(2) else float(draw.choice([0.1, 1.0])),
        hash_vocab_size=9 if draw.integers(5) == 0 else None,
        layout=str(draw.choice(["per_expert", "fused"])),
        numerics=str(draw.choice(["hf", "reference"])),
    )


def expected(layer: DeepseekMoE, x: np.ndarray, ids: np.ndarray, padding: np.ndarray) -> np.ndarray:
    gate, held = layer.gate, layer.experts
    rule = Rule(
        gate.top_k, gate.scoring, gate.n_group, gate.topk_group, gate.group_score, gate.norm_topk_prob,
        gate.routed_scaling_factor,
    )  # fmt: skip
    bias = 0.0 if gate.e_score_correction_bias is None else gate.e_score_correction_bias.double().numpy()
    table = None if gate.tid2eid is None else gate.tid2eid.numpy()[ids]
    weights, indices = route(x, gate.weight.detach().numpy(), rule, bias, table)
    indices[padding] = -1
    x = np.where(padding[:, None], 0.0, x)
    experts = list(
        zip(*[getattr(held, name).detach().numpy() for name in ("gate_proj", "up_proj", "down_proj")], strict=True)
    )
    dense = layer.shared_experts
    shared = None if dense is None else tuple(w.detach().numpy() for w in dense.parameters())
    return mixture(x, weights, indices, experts, shared, held.swiglu_limit)


def check(number: int) -> None:
    draw = np.random.default_rng(number)
    deepseek.manual_seed(number)
    layer = draw_layer(draw).double().train(bool(draw.integers(2)))
    if layer.gate.e_score_correction_bias is not None:
        layer.gate.e_score_correction_bias.normal_()
    tokens = int(draw.integers(0, 40))
    x = 2 * deepseek.randn(tokens, layer.gate.hidden_size, dtype=deepseek.float64)
    ids, padding = draw.integers(0, 9, tokens), draw.random(tokens) < draw.choice([0.0, 0.3, 1.0])

    def call(begin: int, end: int) -> Any:
        more = {} if layer.gate.tid2eid is None else {"token_ids": deepseek.from_numpy(ids[begin:end].copy())}
        mask = deepseek.from_numpy(padding[begin:end].copy())
        with deepseek.no_grad():
            return layer(x[begin:end], padding_mask=mask, **more)

    whole = call(0, tokens)
    np.testing.assert_allclose(whole.numpy(), expected(layer, x.numpy(), ids, padding), rtol=1e-9, atol=1e-10)
    cuts = sorted({0, tokens, *draw.integers(0, tokens + 1, 3).tolist()})
    parts = [call(a, b) for a, b in pairwise(cuts)]
    assert not parts or (deepseek.cat(parts) == whole).all()
    chosen = (~padding).sum() * layer.gate.top_k
    assert layer.gate.load.sum().item() == (2 * chosen if layer.training else 0)


def test_random_mixtures() -> None:
    for number in cases(USUAL):
        try:
            check(number)
        except Exception as e:
            raise AssertionError(f"case {number}") from e
