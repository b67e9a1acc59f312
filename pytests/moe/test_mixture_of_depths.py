"""MixtureOfDepths: the definition, causal choice, padding, caches, gradients, and work that really shrinks (T40)."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import Tensor, nn
from deepseek.moe import MixtureOfDepths, flops_per_token, mixture_of_depths_loss
from deepseek.nn import functional as F
from deepseek.testing import gradcheck
from moe_layers import Stack

DIM = 8


class Cache:
    def __init__(self) -> None:
        self.held: tuple[Tensor, ...] | None = None

    def append(self, *new: Tensor) -> tuple[Tensor, ...]:
        self.held = (
            new if self.held is None else tuple(deepseek.cat([a, b], 1) for a, b in zip(self.held, new, strict=True))
        )
        return self.held


class Attention(nn.Module):
    """Causal single-head attention that adds its input, aware of positions; remembers what shapes it was given."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        self.shapes.append(tuple(x.shape))
        moved = x if positions is None else x + (positions.to(x.dtype) * 0.1).sin().unsqueeze(-1)
        q, k, v = self.qkv(moved).chunk(3, -1)
        if cache is not None:
            k, v = cache.append(k, v)
        scores = q @ k.transpose(1, 2) / math.sqrt(x.shape[-1])
        hidden = deepseek.ones(*scores.shape[1:], dtype=deepseek.bool).triu(1 + k.shape[1] - q.shape[1])
        return x + self.out(scores.masked_fill(hidden, -math.inf).softmax(-1) @ v)


def make(seed: int = 0, block: nn.Module | None = None, **options: Any) -> MixtureOfDepths:
    deepseek.manual_seed(seed)
    return MixtureOfDepths(block or Attention(), DIM, **options)


def sequences(batch: int, length: int, seed: int = 0) -> Tensor:
    return deepseek.from_numpy(np.random.default_rng(seed).standard_normal((batch, length, DIM)).astype(np.float32))


def reference(layer: MixtureOfDepths, x: np.ndarray, chosen: list[list[int]], residual: bool) -> np.ndarray:
    """Equation 1 token by token, in float64; the block alone is ours."""
    out = x.astype(np.float64)
    r = x.astype(np.float64) @ layer.router.weight.detach().numpy().astype(np.float64)[0]
    for b, tokens in enumerate(chosen):
        if tokens:
            with deepseek.no_grad():
                update = layer.block(deepseek.from_numpy(x[b : b + 1, tokens].copy())).numpy()[0].astype(np.float64)
            out[b, tokens] += r[b, tokens, None] * (update - x[b, tokens] if residual else update)
    return out


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
    ("length", "capacity", "k"), [(16, 0.125, 2), (7, 0.5, 3), (5, 0.01, 1), (6, 1.0, 6), (1, 0.1, 1)]
)
def test_training_runs_the_best_tokens_of_each_sequence(length: int, capacity: float, k: int, residual: bool) -> None:
    layer, x = make(capacity=capacity, residual=residual), sequences(3, length)
    values = layer.router(x).detach().numpy()[..., 0]
    chosen = [sorted(np.argsort(-row, kind="stable")[:k].tolist()) for row in values]
    out = layer(x).detach().numpy()
    assert layer.block.shapes == [(3, k, DIM)]
    np.testing.assert_allclose(out, reference(layer, x.numpy(), chosen, residual), rtol=1e-5, atol=1e-6)
    passed = np.ones((3, length), dtype=bool)
    for b, tokens in enumerate(chosen):
        passed[b, tokens] = False
    assert (out[passed] == x.numpy()[passed]).all()
    assert layer.executed.item() == 3 * k and layer.seen.item() == 3 * length


def test_work_really_shrinks() -> None:
    """T40: counted by the block itself, and in FLOPs."""
    layer = make(capacity=0.125)
    layer(sequences(4, 64))
    rows = sum(shape[0] * shape[1] for shape in layer.block.shapes)
    assert rows == 4 * 8 == layer.report().executed
    report, each = layer.report(), 2 * 4 * DIM * DIM
    assert flops_per_token(layer.block) == each
    assert report.dense_flops == 256 * each and report.flops == 32 * each + 256 * 2 * DIM
    assert report.share == 0.125 and "12.5%" in str(report)
    layer.reset_counts()
    assert layer.report().units == 0 and math.isnan(layer.report().share) and str(layer.report())


def test_flops_of_a_mixture_count_top_k_experts_and_no_embedding() -> None:
    model = Stack(dim=16, width=12, experts=8, top_k=2)
    assert flops_per_token(model) == 2 * (2 * 16 * 8 + 2 * 2 * 3 * 16 * 12)
    assert flops_per_token(nn.Sequential(nn.Embedding(100, 16), nn.Linear(16, 4))) == 2 * 16 * 4


def test_gradients_reach_router_block_and_input() -> None:
    layer, x = make(capacity=0.25), sequences(2, 8).requires_grad_()
    layer(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert np.abs(parameter.grad.numpy()).max() > 0, name
    assert np.abs(x.grad.numpy()).min() > 0


@pytest.mark.parametrize("residual", [True, False])
def test_gradcheck(residual: bool) -> None:
    layer = make(capacity=0.5, residual=residual).double()
    x = sequences(2, 6).double().requires_grad_()

    def run(x: Tensor, *parameters: Tensor) -> Tensor:  # gradcheck changes them in place
        return layer(x)

    assert gradcheck(run, (x, layer.router.weight, layer.block.out.weight))


@pytest.mark.parametrize("predictor", ["router", "mlp"])
def test_the_auxiliary_loss_is_cross_entropy_with_the_choice(predictor: str) -> None:
    layer, x = make(predictor=predictor, capacity=0.25), sequences(2, 8).requires_grad_()
    layer(x)
    logits = (layer.router(x) if predictor == "router" else layer.predictor(x)).detach().numpy()[..., 0]
    values = layer.router(x).detach().numpy()[..., 0]
    target = np.zeros((2, 8))
    np.put_along_axis(target, np.argsort(-values, 1)[:, :2], 1, 1)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    loss = mixture_of_depths_loss(nn.Sequential(layer))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert layer.predictor_accuracy() == pytest.approx(((logits > 0) == target).mean())
    loss.backward()
    if predictor == "mlp":  # leaves the model alone
        assert layer.router.weight.grad is None and x.grad is None
    else:
        assert layer.router.weight.grad is not None


@pytest.mark.parametrize("predictor", ["router", "mlp"])
def test_training_teaches_the_predictor(predictor: str) -> None:
    """With the loss, choosing token by token agrees with top-k for nearly all tokens of unseen sequences."""
    layer = make(predictor=predictor, capacity=0.25, block=nn.Linear(DIM, DIM), residual=False)
    optimizer = deepseek.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0)
    direction = deepseek.from_numpy(np.random.default_rng(5).standard_normal(DIM).astype(np.float32))
    with deepseek.no_grad():
        layer.router.weight.copy_(direction.view(1, -1))
    for step in range(300):
        x = sequences(8, 32, step) + 0.0
        x[:, ::4] += 2 * direction / direction.norm()  # a quarter stands out
        optimizer.zero_grad()
        layer(x)
        mixture_of_depths_loss(layer).backward()
        if step == 280:
            layer.reset_counts()
        optimizer.step()
    assert layer.predictor_accuracy() > (0.9 if predictor == "mlp" else 0.75)


def test_choice_in_evaluation_looks_at_the_token_alone() -> None:
    layer = make().eval()
    x = sequences(2, 12)
    values = layer.router(x).detach().numpy()[..., 0]
    chosen = [np.flatnonzero(row > 0).tolist() for row in values]
    assert len(chosen[0]) != len(chosen[1])
    out = layer(x)
    np.testing.assert_allclose(out.detach().numpy(), reference(layer, x.numpy(), chosen, True), rtol=1e-5, atol=1e-6)
    later = x.clone()
    later[:, 8:] = 5.0
    assert layer(later)[:, :8].equal(out[:, :8])
    assert layer(x[1:])[0].equal(out[1])  # batch mates make no difference, to the bit


def test_top_k_in_training_does_look_ahead_and_causal_false_keeps_it() -> None:
    layer = make(causal=False, capacity=0.25).eval()
    layer(sequences(3, 8))
    assert layer.block.shapes == [(3, 2, DIM)]


@pytest.mark.parametrize("seed", range(8))
def test_cached_equals_uncached_for_any_chunks(seed: int) -> None:
    layer, x = make(seed).eval(), sequences(1, 20, seed)
    positions = deepseek.arange(20).view(1, -1)
    whole = layer(x, positions=positions)
    rng = np.random.default_rng(seed)
    cuts = [0, *sorted(rng.choice(np.arange(1, 20), 5, replace=False).tolist()), 20]
    cache = Cache()
    parts = [layer(x[:, a:b], positions=positions[:, a:b], cache=cache) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_allclose(deepseek.cat(parts, 1).detach().numpy(), whole.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side: str, training: bool) -> None:
    layer = make(capacity=0.4).train(training)
    lengths, width = [9, 4, 1], 9
    parts = [sequences(1, n, n) for n in lengths]
    x, mask = deepseek.full((3, width, DIM), 7.0), deepseek.zeros(3, width, dtype=deepseek.int64)
    places = [slice(width - n, width) if side == "left" else slice(0, n) for n in lengths]
    positions = deepseek.zeros(3, width, dtype=deepseek.int64)
    for row, (part, place) in enumerate(zip(parts, places, strict=True)):
        x[row, place], mask[row, place] = part[0], 1
        positions[row, place] = deepseek.arange(part.shape[1])
    out = layer(x, attention_mask=mask, positions=positions)
    counted = layer.executed.item(), layer.seen.item()
    layer.reset_counts()
    for row, (part, place) in enumerate(zip(parts, places, strict=True)):
        alone = layer(part, positions=deepseek.arange(part.shape[1]).view(1, -1))
        assert out[row, place].equal(alone[0])
    assert counted == (layer.executed.item(), layer.seen.item()) and counted[1] == sum(lengths)
    assert (out[mask == 0] == 7.0).all()


def test_ties_go_to_the_earlier_token_and_threads_change_nothing() -> None:
    layer, x = make(capacity=0.5), deepseek.ones(1, 6, DIM)
    out = layer(x)
    assert (out[0, 3:] == 1).all() and not (out[0, :3] == 1).all()
    x = sequences(4, 64)
    threads, found = deepseek.get_num_threads(), []
    for count in (1, 2):
        deepseek.set_num_threads(count)
        found.append(layer(x))
    deepseek.set_num_threads(threads)
    assert found[0].equal(found[1])


@pytest.mark.parametrize("predictor", ["router", "mlp"])
@pytest.mark.parametrize("residual", [True, False])
def test_lower_precision_changes_no_choice(predictor: str, residual: bool) -> None:
    layer, x = make(capacity=0.5, predictor=predictor, residual=residual), sequences(2, 16)
    plain = layer(x)
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        out = layer(x)
    assert out.dtype == deepseek.float32
    unchosen = (plain == x).all(-1)
    assert ((out == x).all(-1) == unchosen).all() and unchosen.sum().item() == 16
    np.testing.assert_allclose(out.detach().numpy(), plain.detach().numpy(), atol=0.1)
    (out.sum() + layer.auxiliary_loss).backward()
    layer.bfloat16()
    assert layer(x.bfloat16()).dtype == deepseek.bfloat16


def test_a_layer_that_was_trained_can_be_copied() -> None:
    layer, x = make(), sequences(2, 8)
    layer(x)
    twin = copy.deepcopy(layer)
    assert twin.auxiliary_loss is None and layer.auxiliary_loss is not None
    assert twin(x).equal(layer(x))


def test_empty_and_refused_input() -> None:
    layer = make()
    assert layer(sequences(2, 0)).shape == (2, 0, DIM) and layer.auxiliary_loss.item() == 0
    assert layer(sequences(2, 3), attention_mask=deepseek.zeros(2, 3)).equal(sequences(2, 3))
    for options, text in [
        ({"capacity": 0}, "above 0"),
        ({"capacity": 1.5}, "at most 1"),
        ({"predictor": "x"}, "'mlp'"),
    ]:
        with pytest.raises(ValueError, match=text):
            MixtureOfDepths(nn.Identity(), DIM, **options)
    with pytest.raises(RuntimeError, match=r"x must be \[B, L, 8\], got \[2, 3, 4\]"):
        layer(deepseek.ones(2, 3, 4))
    with pytest.raises(RuntimeError, match=r"attention_mask must be \[2, 3\], got \[3\]"):
        layer(sequences(2, 3), attention_mask=deepseek.ones(3))
    with pytest.raises(NotImplementedError, match="same number of tokens"):
        layer.eval()(sequences(2, 12), cache=Cache())
    with pytest.raises(ValueError, match="0 MixtureOfDepths in Linear"):
        mixture_of_depths_loss(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="training mode"):
        mixture_of_depths_loss(layer)


def test_it_learns_what_its_block_is_needed_for() -> None:
    """A quarter of the tokens needs another map than the identity; the router finds them."""
    deepseek.manual_seed(0)
    layer = MixtureOfDepths(nn.Linear(DIM, DIM), DIM, 0.25, residual=False)
    optimizer = deepseek.optim.AdamW(layer.parameters(), lr=2e-2)
    target_map = deepseek.randn(DIM, DIM)
    losses = []
    for step in range(300):
        x = sequences(16, 16, step)
        marked = deepseek.from_numpy(np.random.default_rng(step).permuted(np.tile(np.arange(16) < 4, (16, 1)), axis=1))
        x[..., 0] = deepseek.where(marked, 2.0, -2.0)
        y = deepseek.where(marked.unsqueeze(-1), x @ target_map, x)
        loss = F.mse_loss(layer(x), y) + 0.01 * mixture_of_depths_loss(layer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:5])


def test_padding_may_hold_nan_in_training() -> None:
    grads = []
    for value in (0.0, float("nan")):
        deepseek.manual_seed(0)
        layer = MixtureOfDepths(nn.Linear(8, 8), 8, 0.5)
        x, mask = deepseek.randn(2, 6, 8), deepseek.ones(2, 6, dtype=deepseek.bool)
        mask[1, 3:] = False
        x[~mask] = value
        (layer(x, attention_mask=mask)[mask].sum() + mixture_of_depths_loss(layer)).backward()
        grads.append([parameter.grad for parameter in layer.parameters()])
    assert all(a.equal(b) and a.isfinite().all() for a, b in zip(*grads, strict=True))


def test_a_share_is_not_rounded_down_for_a_rounding_error() -> None:
    """0.29 * 100 is 28.999999999999996 in float64."""
    layer = MixtureOfDepths(nn.Linear(8, 8), 8, 0.29)
    layer(deepseek.randn(1, 100, 8))
    assert layer.report().executed == 29
