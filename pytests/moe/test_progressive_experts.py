"""ProgressiveExperts: what is set at which step, what disabled experts get, and runs that are saved and resumed."""

from __future__ import annotations

import warnings
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.moe import DynamicRouter, ExpertStage, ProgressiveExperts, RoutingTrace, permute_experts
from moe_layers import Stack, stack, tokens

STAIRS = {0: (1, 2), 3: (2, 4), 6: (2, 8)}


def enabled(model: nn.Module) -> list[list[int]]:
    return [np.flatnonzero(m.enabled.numpy()).tolist() for m in model.modules() if isinstance(m, DynamicRouter)]


def test_stairs_are_set_at_their_steps() -> None:
    model = stack()
    schedule = ProgressiveExperts(model, STAIRS)
    seen = []
    for _ in range(8):
        seen.append((model.layers[0].gate.top_k, len(enabled(model)[0])))
        assert seen[-1] == (schedule.stage().top_k, schedule.stage().enabled)
        schedule.step()
    assert seen == [(1, 2)] * 3 + [(2, 4)] * 3 + [(2, 8)] * 2
    assert schedule.stage(10**9) == ExpertStage(2, 8)


def test_even_schedule_goes_from_first_to_last_and_stays() -> None:
    model = stack()
    schedule = ProgressiveExperts(model, begin=2, end=8, top_k=(1, 2), enabled=(2, 8))
    counts = []
    for _ in range(12):
        counts.append((schedule.stage().top_k, schedule.stage().enabled))
        schedule.step()
    assert counts == [(1, 2)] * 3 + [(1, 3), (1, 4), (1, 5), (1, 6), (1, 7)] + [(2, 8)] * 4
    only_k = ProgressiveExperts(stack(top_k=4), begin=0, end=2, top_k=(4, 1))  # dense to sparse
    assert [only_k.stage(s).top_k for s in range(4)] == [4, 3, 1, 1] and only_k.stage().enabled == 8


@pytest.mark.parametrize("seed", range(10))
def test_changes_are_all_there_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    begin, end = int(rng.integers(0, 10)), int(rng.integers(10, 60))
    top_k = tuple(rng.integers(1, 5, 2).tolist())
    enabled = tuple(sorted(rng.integers(max(top_k), 17, 2).tolist()))
    schedule = ProgressiveExperts(stack(experts=16), begin=begin, end=end, top_k=top_k, enabled=enabled)
    stages = [schedule.stage(step) for step in range(end + 5)]
    changes = dict(schedule._changes())
    for step in range(1, end + 5):
        assert (stages[step] != stages[step - 1]) == (step in changes), step
        assert step not in changes or changes[step] == stages[step]
    assert stages[begin] == ExpertStage(top_k[0], enabled[0]) and stages[end] == ExpertStage(top_k[1], enabled[1])
    ProgressiveExperts(stack(), end=10**15, enabled=(2, 8))  # at once


def test_what_has_been_enabled_stays_enabled() -> None:
    model = stack()
    schedule = ProgressiveExperts(model, begin=0, end=20, enabled=(2, 8), order=[5, 1, 7, 0, 2, 3, 4, 6])
    before: set[int] = set()
    for _ in range(21):
        now = set(enabled(model)[1])
        assert before <= now
        before = now
        schedule.step()
    assert before == set(range(8))


@pytest.mark.parametrize("options", [{}, {"scoring": "sigmoid", "selection_bias": True, "norm_topk_prob": True}])
def test_disabled_experts_get_no_token_and_no_gradient(options: dict[str, Any]) -> None:
    model = stack(**options)
    ProgressiveExperts(model, {0: (2, 3)})
    with RoutingTrace(model) as trace:
        loss = (model(tokens(50)) ** 2).sum()
    loss.backward()
    for name, layer in trace.items():
        assert set(layer.indices.numpy().ravel()) <= {0, 1, 2}, name
    for layer in model.layers:
        for parameter in (layer.gate_proj, layer.up_proj, layer.down_proj, layer.gate.weight):
            gradient = parameter.grad.numpy().reshape(8, -1)
            assert (gradient[3:] == 0).all() and np.abs(gradient[:3]).sum(1).min() > 0


def test_probabilities_of_disabled_experts_are_zero() -> None:
    router = stack().layers[0].gate
    ProgressiveExperts(router, {0: (2, 2)})
    weights, indices, logits = router(tokens(5))
    np.testing.assert_allclose(weights.detach().numpy().sum(1), 1, rtol=1e-6)  # softmax over the two
    assert (router.scores(logits).detach().numpy()[:, 2:] == 0).all() and indices.numpy().max() < 2


def train(model: Stack, schedule: ProgressiveExperts, optimizer: Any, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        (model(tokens(32, seed=step)) ** 2).mean().backward()
        optimizer.step()
        for layer in model.layers:
            layer.gate.update_bias(0.01)
        schedule.step()


def test_a_resumed_run_is_the_undisturbed_one(tmp_path: Any) -> None:
    def fresh() -> tuple[Stack, ProgressiveExperts, Any]:
        model = stack(selection_bias=True)
        return model, ProgressiveExperts(model, STAIRS), deepseek.optim.AdamW(model.parameters(), lr=1e-2)

    whole = fresh()
    train(*whole, range(9))
    half = fresh()
    train(*half, range(4))
    path = tmp_path / "run.ds"
    deepseek.save({name: part.state_dict() for name, part in zip("mso", half, strict=True)}, path)
    resumed = fresh()
    saved = deepseek.load(path)
    for name, part in zip("mso", resumed, strict=True):
        part.load_state_dict(saved[name])
    assert resumed[1].current_step == 4 and len(enabled(resumed[0])[0]) == 4
    train(*resumed, range(4, 9))
    for one, other in zip(whole[0].state_dict().values(), resumed[0].state_dict().values(), strict=True):
        assert one.equal(other)


def test_groups_get_experts_in_turns() -> None:
    model = stack(n_group=4, topk_group=2)
    schedule = ProgressiveExperts(model, {0: (2, 4), 1: (2, 6), 2: (2, 8)})
    assert enabled(model)[0] == [0, 2, 4, 6]
    schedule.step()
    assert enabled(model)[0] == [0, 1, 2, 3, 4, 6]
    with deepseek.no_grad():
        _, indices, _ = model.layers[0].gate(tokens(200))
    assert indices.numpy().min() >= 0 and set(indices.numpy().ravel()) <= {0, 1, 2, 3, 4, 6}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("score", ["max", "top2"])
def test_an_accepted_group_limited_stage_never_leaves_a_slot_empty(seed: int, score: str) -> None:
    rng = np.random.default_rng(seed)
    size, groups = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    used, top_k = int(rng.integers(1, groups + 1)), int(rng.integers(1, 4))
    if top_k > size * used:
        return
    deepseek.manual_seed(seed)
    router = DynamicRouter(size * groups, top_k, 16, n_group=groups, topk_group=used, group_score=score)
    for count in range(1, size * groups + 1):
        router.enabled.fill_(True)
        try:
            ProgressiveExperts(router, {0: (top_k, count)})
        except ValueError:
            continue
        assert router(tokens(100))[1].numpy().min() >= 0
    ProgressiveExperts(router, {0: (top_k, size * groups)})


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        (({},), {}, "must begin with step 0"),
        (({1: (1, 2)},), {}, "must begin with step 0"),
        (({0: (3, 2)},), {}, "1 <= top_k <= enabled <= 8"),
        (({0: (0, 2)},), {}, "1 <= top_k"),
        (({0: (1, 9)},), {}, "<= 8 experts"),
        (({0: (1, 4), 5: (1, 2)},), {}, "stays enabled"),
        ((), {"begin": 3, "end": 3, "top_k": (1, 2)}, "0 <= begin < end"),
        ((), {"end": 3}, "top_k=(first, last)"),
        ((), {"end": 3, "enabled": (4, 2)}, "stays enabled"),
        (({0: (1, 4)},), {"order": [0, 1, 2]}, "each of the 8 experts"),
    ],
)
def test_bad_schedules(arguments: Any, options: Any, text: str) -> None:
    with pytest.raises(ValueError) as error:
        ProgressiveExperts(stack(), *arguments, **options)
    assert text in str(error.value) and "ProgressiveExperts" in str(error.value)


def test_other_mistakes() -> None:
    with pytest.raises(TypeError, match="either stages"):
        ProgressiveExperts(stack())
    with pytest.raises(TypeError, match="either stages"):
        ProgressiveExperts(stack(), STAIRS, end=3)
    mixed = nn.Sequential(DynamicRouter(8, 2, 16), DynamicRouter(8, 1, 16), DynamicRouter(4, 2, 16))
    with pytest.raises(ValueError, match=r"top_k=\(first, last\) is needed, the routers differ: \[2, 1, 2\]"):
        ProgressiveExperts(mixed, end=3, enabled=(2, 4))
    with pytest.raises(ValueError, match=r"enabled=\(first, last\) is needed, the routers differ: \[8, 8, 4\]"):
        ProgressiveExperts(mixed, end=3, top_k=(1, 2))
    plain = nn.Module()  # a router of one's own that can disable nothing
    plain.register_buffer("load", deepseek.zeros(8), persistent=False)
    plain.top_k = 2
    with pytest.raises(ValueError, match="no buffer `enabled`"):
        ProgressiveExperts(plain, STAIRS)
    with pytest.raises(ValueError, match="chooses from 1 of 4 groups.*may find only 1"):
        ProgressiveExperts(stack(n_group=4, topk_group=1), {0: (2, 4)})


def test_changes_behind_its_back_are_noticed() -> None:
    model = stack()
    schedule = ProgressiveExperts(model, STAIRS)
    permute_experts(model.layers[0], [7, 6, 5, 4, 3, 2, 1, 0])
    with pytest.raises(RuntimeError, match="changed since step 0"):
        schedule.step()
    with pytest.raises(ValueError, match="no state of a schedule"):
        schedule.load_state_dict({"lr": 1})
    with pytest.raises(ValueError, match="other routers"):
        schedule.load_state_dict(ProgressiveExperts(model.layers[0], STAIRS).state_dict())
    with pytest.raises(TypeError):
        schedule.load_state_dict(3)  # type: ignore[arg-type]
    assert "top-1 of 2" in repr(schedule)


def hashed(columns: int = 2) -> nn.ModuleList:
    return nn.ModuleList([DynamicRouter(8, 2, 16), DynamicRouter(8, columns, 16, hash_vocab_size=4 * columns)])


@pytest.mark.parametrize(
    ("stages", "text"),
    [
        ({0: (2, 4), 5: (2, 8)}, r"tid2eid sends tokens to experts \[4, 5, 6, 7\], which would not be enabled"),
        ({0: (2, 8), 5: (3, 8)}, r"router '1' at step 5: top_k=3, enabled=8; top_k must be at most 2"),
    ],
)
def test_routers_by_token_ids_are_asked_first(stages: dict[int, tuple[int, int]], text: str) -> None:
    routers = hashed()
    with pytest.raises(ValueError, match=text):
        ProgressiveExperts(routers, stages)
    assert enabled(routers) == [list(range(8))] * 2 and [router.top_k for router in routers] == [2, 2]


def test_routers_by_token_ids_take_what_their_table_allows() -> None:
    routers = hashed()
    routers[1].tid2eid.remainder_(4)
    schedule = ProgressiveExperts(routers, {0: (1, 4), 1: (2, 8)})
    schedule.step()
    assert [router.top_k for router in routers] == [2, 2]


def test_a_step_that_raises_changes_nothing() -> None:
    routers = hashed()
    routers[1].tid2eid.remainder_(4)
    schedule = ProgressiveExperts(routers, {0: (1, 4), 1: (2, 5)})
    routers[1].tid2eid.fill_(7)
    for call in (schedule.step, lambda: schedule.load_state_dict(schedule.state_dict() | {"step": 1})):
        with pytest.raises(ValueError, match=r"experts \[7\]"):
            call()
        assert schedule.current_step == 0 and [router.top_k for router in routers] == [1, 1]
        assert enabled(routers) == [[0, 1, 2, 3]] * 2
    routers[1].tid2eid.fill_(3)
    assert schedule.step() == ExpertStage(2, 5) and schedule.current_step == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"stages": {0: (1.5, 2)}}, "top_k at step 0 must be a whole number, got 1.5"),
        ({"stages": {0: (1, 2.0)}}, "enabled at step 0 must be a whole number, got 2.0"),
        ({"stages": {0: (1, True)}}, "must be a whole number, got True"),
        ({"stages": {0: (1, 2), 0.5: (1, 4)}}, "a step must be a whole number, got 0.5"),
        ({"stages": {0: (1, 2, 3)}}, r"a stage is \(top_k, enabled\), got \(1, 2, 3\) at step 0"),
        ({"stages": {0: 1}}, r"a stage is \(top_k, enabled\), got 1 at step 0"),
        ({"stages": {0: ExpertStage(1, 2.5)}}, "enabled at step 0 must be a whole number"),  # type: ignore[arg-type]
        ({"end": 9.5, "enabled": (2, 8)}, "end must be a whole number"),
        ({"end": 9, "top_k": (1, 2.5)}, "top_k must be a whole number, got 2.5"),
    ],
)
def test_numbers_that_are_not_whole(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ProgressiveExperts(stack(), **arguments)
    assert ProgressiveExperts(stack(), {np.int64(0): (np.int32(1), 2)}).stage() == ExpertStage(1, 2)


def test_a_single_weight_that_is_normed_is_warned_of() -> None:
    with pytest.warns(
        UserWarning, match=r"top_k=1 from step 3 on, and router 'layers.0.gate'.*norm_topk_prob"
    ) as all_of:
        ProgressiveExperts(stack(norm_topk_prob=True), {0: (2, 2), 3: (1, 4), 5: (1, 8)})
    assert len(all_of) == 1 and all_of[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ProgressiveExperts(stack(norm_topk_prob=True), {0: (2, 2), 3: (3, 4)})
        ProgressiveExperts(stack(), {0: (1, 2), 3: (2, 4)})
