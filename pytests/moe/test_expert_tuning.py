"""ESFT: scores, the fewest experts, and training that leaves all other bits alone."""

from __future__ import annotations

import itertools
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.moe import ExpertTuning, LayerTrace, RoutingTrace, expert_scores, select_experts
from moe_layers import Stack, stack, tokens

SELECTION = {"layers.0.gate": [1, 4], "layers.1.gate": [0]}


def test_scores_are_shares_of_gates_or_slots() -> None:
    indices = deepseek.tensor([[0, 2], [2, -1], [2, 1]])
    weights = deepseek.tensor([[0.5, 0.25], [1.0, 9.0], [0.25, 0.5]])
    trace = {"a": LayerTrace(4, indices, weights)}
    np.testing.assert_allclose(expert_scores(trace, "token")["a"].numpy(), [0.2, 0.2, 0.6, 0])
    np.testing.assert_allclose(expert_scores(trace)["a"].numpy(), np.array([0.5, 0.5, 1.5, 0]) / 2.5)
    with pytest.raises(ValueError, match="'gate' or 'token'"):
        expert_scores(trace, "mean")
    with pytest.raises(ValueError, match="no token"):
        expert_scores({"a": LayerTrace(4, indices[1:2, 1:], weights[1:2, 1:])})


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9, 1.0])
def test_the_fewest_experts_are_chosen(seed: int, p: float) -> None:
    scores = np.random.default_rng(seed).dirichlet(np.ones(7) * 0.5)
    chosen = select_experts({"a": deepseek.from_numpy(scores)}, p)["a"]
    assert scores[chosen].sum() >= p - 1e-9 and chosen == sorted(chosen)
    smaller = (scores[list(c)].sum() for c in itertools.combinations(range(7), len(chosen) - 1))
    assert max(smaller, default=0.0) < p


def test_select_experts_ties_and_refusals() -> None:
    assert select_experts({"a": deepseek.tensor([1.0, 1, 1, 1])}, 0.5) == {"a": [0, 1]}
    assert select_experts({"a": deepseek.tensor([0.0, 3, 0])}, 1.0) == {"a": [1]}
    for p in (0, 1.1):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            select_experts({}, p)
    for bad in ([0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="finite, >= 0 and not all 0"):
            select_experts({"a": deepseek.tensor(bad)})


def snapshot(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def train(model: Stack, optimizer: Any, steps: int = 3) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        (model(tokens(64, seed=step)) ** 2).mean().backward()
        optimizer.step()


def test_only_chosen_experts_move_and_all_others_keep_their_bits() -> None:
    model = stack()
    before = snapshot(model)
    with ExpertTuning(model, SELECTION) as tuning:
        optimizer = deepseek.optim.AdamW(tuning.parameters(), lr=1e-2, weight_decay=0.1)
        train(model, optimizer)
        # State is as large as what is trained: 3 experts of 3 matrices.
        held = sum(state["exp_avg"].numel() for state in optimizer.state.values())
        assert held == 3 * 3 * 16 * 12 == sum(p.numel() for p in tuning.parameters())
        assert model.layers[0].gate_proj.grad is None  # the stack's gradient is not kept
        assert "1,728 of " in repr(tuning)
    after = snapshot(model)
    for name, old in before.items():
        new = after[name]
        if "proj" not in name:
            assert (new == old).all(), name
            continue
        chosen = SELECTION[name.rpartition(".")[0] + ".gate"]
        moved = [e for e in range(8) if (new[e] != old[e]).any()]
        assert moved == chosen, name
        for expert in chosen:
            assert (new[expert] != old[expert]).mean() > 0.99, name
    assert all(parameter.requires_grad for parameter in model.parameters())
    optimizer = deepseek.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, 1)  # back to what it was
    assert (snapshot(model)["layers.0.gate.weight"] != before["layers.0.gate.weight"]).any()


def test_gradients_of_rows_are_those_of_the_stack() -> None:
    one, other = stack(), stack()
    x = tokens(64)
    (one(x) ** 2).mean().backward()
    with ExpertTuning(other, SELECTION) as tuning:
        (other(x) ** 2).mean().backward()
        (other(x) ** 2).mean().backward()  # accumulates
        for name, row in tuning.named_parameters():
            stack_name, expert = name[:-1].split("[")
            expected = dict(one.named_parameters())[stack_name].grad[int(expert)]
            np.testing.assert_allclose(row.grad.numpy(), 2 * expected.numpy(), rtol=1e-6, atol=1e-9)
        tuning.zero_grad()
        assert all(row.grad is None for row in tuning.parameters())


def test_training_rows_is_training_a_masked_stack() -> None:
    """The slow twin: AdamW on whole stacks, with everything but the chosen experts put back after each step."""
    one, other = stack(), stack()
    with ExpertTuning(one, SELECTION) as tuning:
        train(one, deepseek.optim.AdamW(tuning.parameters(), lr=1e-2))
    start = snapshot(other)
    stacks = {n: p for n, p in other.named_parameters() if "proj" in n}
    optimizer = deepseek.optim.AdamW(stacks.values(), lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        (other(tokens(64, seed=step)) ** 2).mean().backward()
        optimizer.step()
        with deepseek.no_grad():
            for name, parameter in stacks.items():
                for expert in set(range(8)) - set(SELECTION[name.rpartition(".")[0] + ".gate"]):
                    parameter[expert] = deepseek.from_numpy(start[name][expert])
    for (name, a), b in zip(snapshot(one).items(), snapshot(other).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8, err_msg=name)


def test_other_parameters_may_be_trained_too_and_the_state_dict_is_the_models() -> None:
    model = stack()
    keys = list(model.state_dict())
    router = model.layers[0].gate.weight
    before = router.detach().clone()
    with ExpertTuning(model, {"layers.1.gate": [2]}, also=[router]) as tuning:
        train(model, deepseek.optim.AdamW(tuning.parameters(), lr=1e-2))
        assert list(model.state_dict()) == keys and not router.equal(before)
        saved = {name: value.clone() for name, value in model.state_dict().items()}
        other = stack(seed=3)
        other.load_state_dict(saved)
        assert other.layers[1].up_proj.equal(model.layers[1].up_proj)


def test_bfloat16_with_masters() -> None:
    model = stack().bfloat16()
    before = model.layers[0].up_proj.detach().clone()
    with ExpertTuning(model, {"layers.0.gate": [3]}) as tuning:
        optimizer = deepseek.optim.AdamW(tuning.parameters(), lr=1e-2, master_weights=True)
        for step in range(2):
            optimizer.zero_grad()
            (model(tokens(64, seed=step).bfloat16()) ** 2).mean().backward()
            optimizer.step()
    moved = (model.layers[0].up_proj != before).view(8, -1).any(1)
    assert moved.tolist() == [expert == 3 for expert in range(8)]


def test_from_a_trace_of_the_task_to_a_lower_loss() -> None:
    model = stack()
    task = [tokens(64, seed=s)[:, :] * 0.1 + tokens(1, seed=99) for s in range(4)]  # tokens around one direction
    with RoutingTrace(model) as trace, deepseek.no_grad():
        for batch in task:
            model(batch)
    chosen = select_experts(expert_scores(trace), p=0.5)
    assert all(1 <= len(experts) <= 2 for experts in chosen.values())
    with ExpertTuning(model, chosen) as tuning:
        optimizer = deepseek.optim.AdamW(tuning.parameters(), lr=1e-2)
        losses = []
        for step in range(30):
            loss = (model(task[step % 4]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        ({"gate": [1]}, "no router 'gate' in the model; it has layers.0.gate, layers.1.gate"),
        ({"layers.0.gate": [8]}, "from 0 to 7, got [8]"),
        ({"layers.0.gate": [1, 1]}, "must be different"),
        ({}, "nothing to train"),
        ({"layers.0.gate": []}, "nothing to train"),
    ],
)
def test_bad_selections(selection: dict[str, list[int]], text: str) -> None:
    model = stack()
    with pytest.raises(ValueError) as error:
        ExpertTuning(model, selection)
    assert text in str(error.value)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="has no router"):
        ExpertTuning(nn.Linear(2, 2), {})
    with pytest.raises(ValueError, match="parameters of the model"):
        ExpertTuning(stack(), SELECTION, also=[nn.Parameter(deepseek.ones(2))])
    model = stack()
    with pytest.raises(ValueError, match="also holds a stack"):
        ExpertTuning(model, SELECTION, also=[model.layers[0].up_proj])
    with ExpertTuning(model, SELECTION):
        model.bfloat16()
        with pytest.raises(RuntimeError, match="convert the model before"):
            model(tokens(64).bfloat16()).sum().backward()


def test_two_at_once_on_one_stack_are_refused() -> None:
    model = stack()
    with ExpertTuning(model, {"layers.0.gate": [1]}):
        with pytest.raises(ValueError, match=r"already trained by an ExpertTuning that is open; close\(\)"):
            ExpertTuning(model, {"layers.0.gate": [2]})
        ExpertTuning(model, {"layers.1.gate": [2]}).close()  # other stacks
    with ExpertTuning(model, {"layers.0.gate": [2]}) as tuning:
        model(tokens(30)).square().sum().backward()
        assert sum(parameter.grad is not None for parameter in tuning.parameters()) == 3


def test_stacks_are_declared_not_guessed() -> None:
    class Silent(type(stack().layers[0])):  # type: ignore[misc]
        expert_weights = ()

    with pytest.raises(ValueError, match="no stacked expert parameters: a class names them in expert_weights"):
        ExpertTuning(Silent(16, 12, 8, 2), {"gate": [1]})
