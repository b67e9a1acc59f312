"""DynamicRouter against the papers' formulas, one token at a time, and a named test for each trap."""

from __future__ import annotations

import math
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.autograd import gradcheck
from deepseek.moe import DeepseekMoE, DynamicRouter
from moe.moe_reference import Rule, route

CASES = [
    Rule(2),
    Rule(1, norm=True),
    Rule(6, scale=16.0),
    Rule(3, n_group=4, topk_group=2, scale=16.0),
    Rule(4, "sigmoid", 4, 2, "top2", True, 2.5),
    Rule(8, "sigmoid", 4, 2, "top2", True, 2.5),  # all of the kept groups
    Rule(5, "sigmoid", norm=True),
    Rule(3, "sqrtsoftplus", norm=True, scale=1.5),
    Rule(16, "softmax"),
]


def router_of(rule: Rule, experts: int = 16, dim: int = 12, **more: Any) -> DynamicRouter:
    return DynamicRouter(
        experts, rule.top_k, dim, scoring=rule.scoring, n_group=rule.n_group, topk_group=rule.topk_group,
        group_score=rule.group_score, norm_topk_prob=rule.norm, routed_scaling_factor=rule.scale, **more,
    )  # fmt: skip


def biased(router: DynamicRouter, seed: int = 3) -> np.ndarray:
    """Gives the selection bias values of the size of the scores."""
    bias = np.random.default_rng(seed).normal(size=router.num_experts).astype(np.float32)
    assert router.e_score_correction_bias is not None
    router.e_score_correction_bias.copy_(deepseek.from_numpy(bias))
    return bias


@pytest.mark.parametrize("rule", CASES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_formula(rule: Rule, bias: bool) -> None:
    deepseek.manual_seed(0)
    router = router_of(rule, selection_bias=bias).double()
    x = deepseek.randn(3, 7, 12, dtype=deepseek.float64) * 3
    with deepseek.no_grad():
        got = router(x)
    shift = biased(router) if bias else 0.0
    with deepseek.no_grad():
        got = router(x)
    weights, indices = route(x.numpy().reshape(-1, 12), router.weight.detach().numpy(), rule, shift)
    np.testing.assert_array_equal(got.indices.numpy(), indices)
    np.testing.assert_allclose(got.weights.numpy(), weights, rtol=1e-12)
    np.testing.assert_allclose(got.logits.numpy(), x.numpy().reshape(-1, 12) @ router.weight.detach().numpy().T)


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "sqrtsoftplus"])
@pytest.mark.parametrize("norm", [False, True])
def test_gradients(scoring: str, norm: bool) -> None:
    router = router_of(Rule(3, scoring, norm=norm, scale=2.5), selection_bias=True).double()
    biased(router)
    x = deepseek.randn(4, 12, dtype=deepseek.float64, requires_grad=True)

    def weights_and_logits(x: Any, weight: Any) -> Any:
        router._parameters["weight"] = weight
        out = router(x)
        return out.weights, out.logits

    assert gradcheck(weights_and_logits, (x, router.weight))


# --- traps


def test_masked_groups_are_minus_infinity() -> None:
    """Choices of kept groups that are below zero must still beat those of other groups, which 0 in their place would
    not."""
    router = router_of(Rule(2, "sigmoid", 2, 1, "top2", True), experts=4, dim=4, selection_bias=True)
    router.e_score_correction_bias.copy_(deepseek.tensor([-5.0, -5.0, -9.0, -9.0]))
    assert sorted(router(deepseek.randn(1, 4)).indices[0].tolist()) == [0, 1]


def test_weights_are_unbiased_scores() -> None:
    router = router_of(Rule(2, "sigmoid"), experts=4, dim=4, selection_bias=True)
    with deepseek.no_grad():
        router.weight.copy_(deepseek.eye(4))
    router.e_score_correction_bias.copy_(deepseek.tensor([0.0, 0.0, 1e6, 1e6]))  # biased - bias has no digit left
    out = router(deepseek.tensor([[3.0, 2.0, 1.0, -1.0]]))
    assert out.indices.tolist() == [[2, 3]]
    assert out.weights.tolist()[0] == deepseek.sigmoid(deepseek.tensor([1.0, -1.0])).tolist()


def test_bias_takes_part_in_the_choice_alone() -> None:
    router = router_of(Rule(2, "sigmoid", norm=True), experts=4, dim=4, selection_bias=True)
    router.e_score_correction_bias.copy_(deepseek.tensor([0.0, 0.0, 9.0, 9.0]))
    out = router(deepseek.randn(5, 4))
    assert not router.e_score_correction_bias.requires_grad
    assert not out.indices.requires_grad and out.weights.requires_grad
    assert {i for row in out.indices.tolist() for i in row} == {2, 3}


def test_the_lowest_of_equal_experts() -> None:
    router = router_of(Rule(3), experts=6, dim=4)
    with deepseek.no_grad():
        router.weight.fill_(0.25)
    assert router(deepseek.randn(5, 4)).indices.tolist() == [[0, 1, 2]] * 5
    grouped = router_of(Rule(2, "sigmoid", 3, 1, "top2"), experts=6, dim=4)
    with deepseek.no_grad():
        grouped.weight.fill_(0.25)
    assert grouped(deepseek.randn(5, 4)).indices.tolist() == [[0, 1]] * 5


def test_normalising_survives_scores_that_vanish() -> None:
    router = router_of(Rule(2, "sigmoid", norm=True), experts=4, dim=1)
    with deepseek.no_grad():
        router.weight.fill_(-1.0)
    x = deepseek.tensor([[200.0]], requires_grad=True)  # every sigmoid is 0
    out = router(x)
    assert out.weights.tolist() == [[0.0, 0.0]]


def test_slope_of_sqrtsoftplus_far_below_zero() -> None:
    """softplus(-200) is 0 in float32, and the root of 0 has no slope."""
    router = router_of(Rule(1, "sqrtsoftplus"), experts=1, dim=1)
    with deepseek.no_grad():
        router.weight.fill_(1.0)
    x = deepseek.tensor([[-200.0], [-90.0], [-41.0], [-39.0], [-1.0], [90.0]], requires_grad=True)
    out = router(x).weights
    out.sum().backward()
    want = [math.exp(z / 2) if z < -20 else math.sqrt(math.log1p(math.exp(z))) for z in (-90, -41, -39, -1, 90)]
    np.testing.assert_allclose(out.detach().numpy()[1:, 0], want, rtol=1e-5)
    assert out[0].item() >= 0 and deepseek.isfinite(x.grad).all()
    np.testing.assert_allclose(x.grad.numpy()[1, 0], math.exp(-45) / 2, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gate_computes_in_float32(dtype: str) -> None:
    router = router_of(Rule(2))
    x = deepseek.randn(5, 12).to(getattr(deepseek, dtype))
    plain = router(x.float())
    for out in (router(x), _autocast(router, x.float(), dtype)):
        assert out.weights.dtype == out.logits.dtype == deepseek.float32
        assert (out.logits == plain.logits).all() and (out.indices == plain.indices).all()
    low = router.to(getattr(deepseek, dtype))
    assert low(x).logits.dtype == deepseek.float32


def _autocast(router: DynamicRouter, x: Any, dtype: str) -> Any:
    with deepseek.autocast("cpu", dtype=getattr(deepseek, dtype)):
        return router(x)


def test_bias_stays_float32() -> None:
    router = router_of(Rule(2), selection_bias=True).to(deepseek.bfloat16)
    assert router.weight.dtype == deepseek.bfloat16
    assert router.e_score_correction_bias.dtype == deepseek.float32


# --- padding, hash routing, experts that are off, capacity


def test_padding_gets_no_expert_and_is_not_counted() -> None:
    router = router_of(Rule(2, norm=True))
    x = deepseek.randn(2, 5, 12)
    mask = deepseek.tensor([[True, True, False, False, False], [False, False, False, False, True]])
    plain, padded = router(x), None
    router.reset_load()
    x[mask] = math.nan
    padded = router(x, padding_mask=mask)
    flat = mask.reshape(-1)
    assert (padded.indices[flat] == -1).all() and (padded.weights[flat] == 0).all()
    assert (padded.indices[~flat] == plain.indices[~flat]).all()
    assert (padded.weights[~flat] == plain.weights[~flat]).all()
    assert router.load.sum().item() == 7 * 2


def test_left_and_right_padding_equal_none() -> None:
    router = router_of(Rule(4, "sigmoid", 4, 2, "top2", True, 2.5), selection_bias=True)
    biased(router)
    x, pad = deepseek.randn(6, 12), deepseek.randn(3, 12)
    alone = router(x)
    for parts, place in (([pad, x], slice(3, 9)), ([x, pad], slice(0, 6))):
        mask = deepseek.ones(9, dtype=deepseek.bool)
        mask[place] = False
        out = router(deepseek.cat(parts), padding_mask=mask)
        assert (out.indices[place] == alone.indices).all() and (out.weights[place] == alone.weights).all()


def test_hash_routing_chooses_by_token_and_weighs_by_the_gate() -> None:
    router = router_of(Rule(3, "sqrtsoftplus", norm=True, scale=1.5), hash_vocab_size=20).double()
    assert all(len(set(row)) == 3 for row in router.tid2eid.tolist())  # experts differ
    table = np.random.default_rng(1).permuted(np.tile(np.arange(16), (20, 1)), axis=1)[:, :3]
    router.tid2eid.copy_(deepseek.from_numpy(table))
    ids = deepseek.randint(0, 20, (2, 5))
    x = deepseek.randn(2, 5, 12, dtype=deepseek.float64)
    out = router(x, token_ids=ids)
    weights, indices = route(
        x.numpy().reshape(-1, 12), router.weight.detach().numpy(), Rule(3, "sqrtsoftplus", norm=True, scale=1.5),
        table=table[ids.numpy().reshape(-1)],
    )  # fmt: skip
    np.testing.assert_array_equal(out.indices.numpy(), indices)
    np.testing.assert_allclose(out.weights.detach().numpy(), weights, rtol=1e-12)
    assert "tid2eid" in router.state_dict()


def test_experts_that_are_off_are_not_chosen() -> None:
    router = router_of(Rule(2, norm=True, scale=3.0), experts=6, dim=4)
    router.enabled[2:] = False
    out = router(deepseek.randn(9, 4))
    assert set(out.indices.reshape(-1).tolist()) == {0, 1}
    np.testing.assert_allclose(out.weights.detach().sum(-1).numpy(), 3.0, rtol=1e-6)
    router.enabled[1:] = False  # fewer than top_k
    out = router(deepseek.randn(9, 4))
    assert out.indices.tolist() == [[0, -1]] * 9
    np.testing.assert_allclose(out.weights.detach().numpy(), [[3.0, 0.0]] * 9, rtol=1e-6)


def test_groups_with_experts_that_are_off() -> None:
    router = router_of(Rule(2, "sigmoid", 2, 1, "top2"), experts=4, dim=4)
    router.enabled[:] = deepseek.tensor([False, True, False, False])
    assert router(deepseek.randn(3, 4)).indices.tolist() == [[1, -1]] * 3


def by_capacity(indices: np.ndarray, experts: int, capacity: int) -> np.ndarray:
    """Slot after slot, token after token, an expert takes what still fits."""
    kept, taken = indices.copy(), [0] * experts
    for slot in range(indices.shape[1]):
        for token in range(indices.shape[0]):
            expert = indices[token, slot]
            if expert < 0:
                continue
            if taken[expert] == capacity:
                kept[token, slot] = -1
            else:
                taken[expert] += 1
    return kept


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 1.25, 9.0])
def test_capacity_drops_what_comes_last(factor: float) -> None:
    free, router = router_of(Rule(3), experts=8), router_of(Rule(3), experts=8, capacity_factor=factor)
    router.load_state_dict(free.state_dict())
    x = deepseek.randn(37, 12)
    mask = deepseek.zeros(37, dtype=deepseek.bool)
    mask[5:9] = True
    plain, out = free(x, padding_mask=mask), router(x, padding_mask=mask)
    want = by_capacity(plain.indices.numpy(), 8, math.ceil(factor * 33 * 3 / 8))
    np.testing.assert_array_equal(out.indices.numpy(), want)
    assert (out.weights == plain.weights * (out.indices >= 0)).all()
    assert (router.load == free.load).all()
    kept = np.bincount(want[want >= 0], minlength=8)
    np.testing.assert_array_equal((router.load - router.dropped).numpy(), kept)


# --- counting and balance


def test_load_counts_training_forwards_alone() -> None:
    router = router_of(Rule(2))
    x = deepseek.randn(5, 12)
    once = np.bincount(router(x).indices.numpy().reshape(-1), minlength=16)
    router(x)
    router.eval()(x)
    np.testing.assert_array_equal(router.load.numpy(), 2 * once)
    assert set(router.state_dict()) == {"weight"}
    router.reset_load()
    assert router.load.sum().item() == 0


def test_bias_moves_against_the_load() -> None:
    router = router_of(Rule(2, "sigmoid"), experts=4, dim=4, selection_bias=True)
    router.update_bias(0.5, load=deepseek.tensor([4, 0, 2, 2]))
    assert router.e_score_correction_bias.tolist() == [-0.5, 0.5, 0.0, 0.0]
    router.load.copy_(deepseek.tensor([0, 8, 0, 0]))
    router.update_bias(0.5)
    assert router.e_score_correction_bias.tolist() == [0.0, 0.0, 0.5, 0.5]
    router.update_bias(0.5)  # nothing came since
    assert router.e_score_correction_bias.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert router.load.tolist() == [0, 8, 0, 0]  # others may still read it


def test_bias_balances_without_a_loss() -> None:
    """Max over mean load falls to 1.2 or less (2408.15664)."""
    deepseek.manual_seed(0)
    router = router_of(Rule(2, "sigmoid", norm=True), experts=16, dim=12, selection_bias=True)
    x = deepseek.randn(512, 12) + deepseek.randn(12)  # tokens that have much in common
    with deepseek.no_grad():
        router(x)
        first = (router.load.max() / router.load.float().mean()).item()
        for _ in range(300):
            router.update_bias(1e-2)
            router.reset_load()
            router(x)
    last = (router.load.max() / router.load.float().mean()).item()
    assert first > 1.5 and last <= 1.2


def test_orthogonal_rows() -> None:
    for experts, dim in ((16, 64), (64, 16), (40, 40)):
        w = DynamicRouter(experts, 2, dim).weight.detach().double().numpy()
        gram = w @ w.T if experts <= dim else w.T @ w
        np.testing.assert_allclose(gram, np.eye(min(experts, dim)), atol=1e-6)


def test_orthogonal_start_is_more_even_than_a_normal_one() -> None:
    spread: dict[str, list[float]] = {"orthogonal": [], "normal": []}
    for seed in range(20):
        deepseek.manual_seed(seed)
        x = deepseek.randn(512, 64)
        for init, found in spread.items():
            router = DynamicRouter(32, 2, 64, init=init)
            router(x)
            load = router.load.double()
            found.append((load.std() / load.mean()).item())
    assert np.mean(spread["orthogonal"]) < np.mean(spread["normal"])


# --- sameness


@pytest.mark.parametrize("rule", CASES[2:5], ids=str)
def test_choice_depends_on_the_token_alone(rule: Rule) -> None:
    router = router_of(rule, dim=130)
    x = deepseek.randn(200, 130)
    whole = router(x)
    order = deepseek.randperm(200)
    shuffled = router(x[order])
    assert (shuffled.indices == whole.indices[order]).all() and (shuffled.weights == whole.weights[order]).all()
    for size in (1, 7, 64):
        parts = [router(part) for part in x.split(size)]
        assert (deepseek.cat([p.indices for p in parts]) == whole.indices).all()
        assert (deepseek.cat([p.weights for p in parts]) == whole.weights).all()


def test_choice_is_the_same_for_any_number_of_threads() -> None:
    router = router_of(Rule(4, "sigmoid", 4, 2, "top2", True, 2.5), dim=300, capacity_factor=1.0)
    x = deepseek.randn(700, 300)
    before = deepseek.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 5):
            deepseek.set_num_threads(threads)
            found.append(router(x))
    finally:
        deepseek.set_num_threads(before)
    for other in found[1:]:
        assert all((a == b).all() for a, b in zip(found[0], other, strict=True))


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"hidden_size": None}, "hidden_size, the width of a token, is required"),
        ({"top_k": 9}, "top_k must be from 1 to num_experts=8; got 9"),
        ({"top_k": 0}, "top_k must be from 1 to num_experts=8; got 0"),
        ({"top_k": -1}, "got -1"),
        ({"num_experts": 0}, "num_experts must be at least 1, got 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"n_group": 3}, "n_group must divide num_experts"),
        ({"n_group": 4, "topk_group": 5}, "topk_group be from 1 to n_group"),
        ({"n_group": 4, "topk_group": 0}, "topk_group be from 1 to n_group"),
        ({"n_group": 4, "topk_group": 1, "top_k": 3}, "top_k must be from 1 to 2, the experts in 1 of 4 groups"),
        ({"n_group": 8, "topk_group": 4, "group_score": "top2"}, "groups of two experts or more"),
        ({"scoring": "relu"}, "scoring must be one of 'softmax', 'sigmoid', 'sqrtsoftplus', got 'relu'"),
        ({"group_score": "mean"}, "group_score must be one of 'max', 'top2'"),
        ({"init": "zeros"}, "init must be one of 'orthogonal', 'normal'"),
        ({"capacity_factor": 0.0}, "capacity_factor must be positive or None, got 0.0"),
        ({"capacity_factor": math.nan}, "capacity_factor must be positive"),
        ({"hash_vocab_size": 0}, "hash_vocab_size must be at least 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DynamicRouter(**{"num_experts": 8, "top_k": 2, "hidden_size": 4} | arguments)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (RuntimeError, "input must be", lambda r: r(deepseek.randn(3, 5))),
        (RuntimeError, "input must be", lambda r: r(deepseek.tensor(1.0))),
        (TypeError, "floating point", lambda r: r(deepseek.ones(3, 4, dtype=deepseek.int64))),
        (RuntimeError, "padding_mask must be", lambda r: r(deepseek.randn(3, 4), padding_mask=deepseek.zeros(2) > 0)),
        (TypeError, "padding_mask must be bool", lambda r: r(deepseek.randn(3, 4), padding_mask=deepseek.zeros(3))),
        (ValueError, "token_ids are for hash", lambda r: r(deepseek.randn(3, 4), token_ids=deepseek.arange(3))),
        (RuntimeError, "no bias", lambda r: r.update_bias()),
        (
            ValueError,
            "load must be finite",
            lambda r: DynamicRouter(8, 2, 4, selection_bias=True).update_bias(load=deepseek.full((8,), math.nan)),
        ),
        (ValueError, "top_k must be from 1", lambda r: setattr(r, "top_k", 9)),
    ],
)
def test_bad_calls(error: type[Exception], text: str, call: Any) -> None:
    with pytest.raises(error, match=text):
        call(DynamicRouter(8, 2, 4))


def test_bad_token_ids() -> None:
    router = DynamicRouter(8, 2, 4, hash_vocab_size=5)
    x = deepseek.randn(3, 4)
    with pytest.raises(ValueError, match="pass token_ids"):
        router(x)
    with pytest.raises(TypeError, match="must be integers"):
        router(x, token_ids=deepseek.zeros(3))
    with pytest.raises(RuntimeError, match="token_ids must be"):
        router(x, token_ids=deepseek.arange(2))
    with pytest.raises(IndexError):
        router(x, token_ids=deepseek.tensor([0, 1, 5]))
    with pytest.raises(ValueError, match="width of tid2eid"):
        router.top_k = 3


def test_no_token_and_one_token() -> None:
    router = router_of(Rule(4, "sigmoid", 4, 2, "top2", True), selection_bias=True, capacity_factor=1.0)
    for shape in ((0, 12), (2, 0, 12), (12,), (1, 12)):
        out = router(deepseek.randn(*shape))
        tokens = math.prod(shape[:-1])
        assert out.weights.shape == out.indices.shape == (tokens, 4) and out.logits.shape == (tokens, 16)
        assert not out.weights.isnan().any()


def test_nan_stays_in_its_token() -> None:
    for scoring in ("softmax", "sigmoid", "sqrtsoftplus"):
        router = router_of(Rule(2, scoring, norm=True))
        x = deepseek.randn(3, 12)
        clean = router(x)
        x[1, 5] = math.nan
        out = router(x)
        assert out.weights[1].isnan().all() and (out.indices >= 0).all() and (out.indices < 16).all()
        for t in (0, 2):
            assert (out.weights[t] == clean.weights[t]).all() and (out.indices[t] == clean.indices[t]).all()


def test_capacity_is_not_rounded_up_for_a_rounding_error() -> None:
    """1.1 * 100 / 10 is 11.000000000000002 in float64."""
    router = DynamicRouter(10, 1, 4, capacity_factor=1.1)
    x = deepseek.ones(100, 4)  # all choose the same
    assert (router(x).indices >= 0).sum().item() == 11
    assert (router(x[:91]).indices >= 0).sum().item() == 11  # 10.01


def test_a_table_with_an_expert_out_of_range() -> None:
    router = DynamicRouter(4, 2, 8, hash_vocab_size=10)
    ids = deepseek.arange(5)
    for wrong in (4, -1):
        router.tid2eid[3, 1] = wrong
        with pytest.raises(IndexError, match="DynamicRouter: tid2eid must hold experts from 0 to 3, got values from"):
            router(deepseek.randn(5, 8), token_ids=ids)
        router(deepseek.randn(3, 8), token_ids=ids[:3])


def test_the_bias_stays_float32_when_a_checkpoint_is_assigned() -> None:
    router = DynamicRouter(4, 2, 8, selection_bias=True)
    state = {name: value.bfloat16() for name, value in router.state_dict().items()}
    state["e_score_correction_bias"] = deepseek.tensor([0.5, 1, -2, 0], dtype=deepseek.bfloat16)
    router.load_state_dict(state, assign=True)
    assert router.weight.dtype == deepseek.bfloat16 and router.e_score_correction_bias.dtype == deepseek.float32
    assert router.e_score_correction_bias.tolist() == [0.5, 1, -2, 0]
    router.load_state_dict(state)
    assert router.e_score_correction_bias.dtype == deepseek.float32


def test_one_weight_that_is_normed_teaches_nothing() -> None:
    """What the documentation warns of."""
    x = deepseek.randn(20, 8)
    for norm in (True, False):
        router = DynamicRouter(4, 1, 8, norm_topk_prob=norm)
        (router(x).weights * deepseek.randn(20, 1)).sum().backward()
        assert (router.weight.grad.abs().max().item() < 1e-6) == norm


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "sqrtsoftplus"])
def test_padding_may_hold_nan_in_training(scoring: str) -> None:
    grads = []
    for value in (0.0, float("nan")):
        deepseek.manual_seed(0)
        layer = DeepseekMoE(8, 4, 4, 2, scoring_func=scoring, n_shared_experts=1, aux_loss_alpha=0.1)
        x = deepseek.randn(2, 5, 8)
        mask = deepseek.tensor([[False] * 5, [False] * 2 + [True] * 3])
        x[mask] = value
        x.requires_grad_()
        out = layer(x, padding_mask=mask)
        (out.square().sum() + layer.aux_loss).backward()
        assert (out[mask] == 0).all() and (x.grad[mask] == 0).all()
        grads.append([x.grad, *[parameter.grad for parameter in layer.parameters()]])
    assert all(a.equal(b) and a.isfinite().all() for a, b in zip(*grads, strict=True))
