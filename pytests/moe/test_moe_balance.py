"""Balance losses against their formulas, and what padding and empty slots do."""

from __future__ import annotations

from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import moe
from deepseek.autograd import gradcheck
from deepseek.nn import functional as F

B, L, E, K = 3, 5, 6, 2


def draw(dtype: deepseek.dtype = deepseek.float64) -> tuple[Any, Any, Any, Any]:
    """Logits, probabilities, choices and a mask that leaves the second sequence nothing."""
    deepseek.manual_seed(0)
    logits = deepseek.randn(B, L, E, dtype=dtype)
    probs = F.softmax(logits, -1)
    mask = deepseek.tensor([[False] * 3 + [True] * 2, [True] * 5, [True] + [False] * 4])
    return logits, probs, deepseek.topk(probs, K, -1)[1], mask


def switch(probs: np.ndarray, chosen: np.ndarray) -> float:
    """probs [T, E], chosen [T, k]: one sum after the other."""
    flat = [i for i in chosen.reshape(-1) if i >= 0]
    if not flat or not len(probs):
        return 0.0
    return float(sum(probs.shape[1] * (flat.count(i) / len(flat)) * probs[:, i].mean() for i in range(probs.shape[1])))


def test_the_source_form() -> None:
    _, probs, _, _ = draw()
    mean = probs.numpy().reshape(-1, E).mean(0)
    want = 0.01 * np.mean((mean - 1 / E) ** 2)
    np.testing.assert_allclose(moe.moe_balance_loss(probs, E).item(), want, rtol=1e-12)
    np.testing.assert_allclose(moe.moe_balance_loss(probs, E, weight=2.0).item(), 200 * want, rtol=1e-12)
    assert moe.moe_balance_loss(deepseek.full((4, E), 1 / E), E).item() < 1e-12


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_switch_and_sequence(padded: bool, empty: bool) -> None:
    _, probs, chosen, mask = draw()
    if empty:
        chosen = chosen.masked_fill(deepseek.randn(*chosen.shape) > 0.5, -1)
    pad = mask if padded else None
    kept = ~mask.numpy() if padded else np.ones((B, L), dtype=bool)
    p, c = probs.numpy(), chosen.numpy()
    got = moe.load_balancing_loss(probs, chosen, padding_mask=pad).item()
    np.testing.assert_allclose(got, switch(p[kept], c[kept]), rtol=1e-12)
    each = [switch(p[b][kept[b]], c[b][kept[b]]) for b in range(B) if kept[b].any()]
    for shape in ((B, L, K), (B * L, K)):
        got = moe.sequence_balance_loss(probs, chosen.view(*shape), padding_mask=pad).item()
        np.testing.assert_allclose(got, np.mean(each), rtol=1e-12)


def test_even_routing_gives_one() -> None:
    probs = deepseek.full((E, E), 1 / E)
    chosen = deepseek.stack([deepseek.arange(E), (deepseek.arange(E) + 1) % E], dim=1)
    assert moe.load_balancing_loss(probs, chosen).item() == pytest.approx(1.0)
    one = F.one_hot(deepseek.zeros(E, dtype=deepseek.int64), E).float()
    assert moe.load_balancing_loss(one, deepseek.zeros(E, 1, dtype=deepseek.int64)).item() == E


def test_z_loss() -> None:
    logits, _, _, mask = draw()
    z = np.log(np.exp(logits.numpy()).sum(-1)) ** 2
    np.testing.assert_allclose(moe.router_z_loss(logits).item(), z.mean(), rtol=1e-12)
    np.testing.assert_allclose(moe.router_z_loss(logits, padding_mask=mask).item(), z[~mask.numpy()].mean(), rtol=1e-12)


LOSSES = {
    "source": lambda logits, chosen, mask: moe.moe_balance_loss(F.softmax(logits, -1), E, padding_mask=mask),
    "switch": lambda logits, chosen, mask: moe.load_balancing_loss(F.softmax(logits, -1), chosen, padding_mask=mask),
    "sequence": lambda logits, chosen, mask: moe.sequence_balance_loss(
        F.softmax(logits, -1), chosen, padding_mask=mask
    ),
    "z": lambda logits, chosen, mask: moe.router_z_loss(logits, padding_mask=mask),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("padded", [False, True])
def test_gradients(loss: str, padded: bool) -> None:
    logits, _, chosen, mask = draw()
    call = LOSSES[loss]
    assert gradcheck(lambda z: call(z, chosen, mask if padded else None), (logits.requires_grad_(),))


@pytest.mark.parametrize("loss", LOSSES)
def test_padding_may_hold_anything(loss: str) -> None:
    logits, _, chosen, mask = draw(deepseek.float32)
    clean = LOSSES[loss](logits, chosen, mask)
    spoilt = logits.clone()
    spoilt[mask] = float("nan")
    spoilt.requires_grad_()
    got = LOSSES[loss](spoilt, chosen, mask)
    got.backward()
    assert got.item() == clean.item()
    assert loss != "source" or spoilt.grad[~mask].isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_no_token_gives_zero(loss: str) -> None:
    empty = deepseek.zeros(2, 0, E, requires_grad=True)
    none = deepseek.zeros(2, 0, K, dtype=deepseek.int64)
    assert LOSSES[loss](empty, none, None).item() == 0
    logits, _, chosen, mask = draw()
    assert LOSSES[loss](logits, chosen, deepseek.ones_like(mask)).item() == 0


def test_losses_are_float32() -> None:
    logits, _, chosen, _ = draw(deepseek.float32)
    for call in LOSSES.values():
        assert call(logits.bfloat16(), chosen, None).dtype == deepseek.float32
        with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
            assert call(logits, chosen, None).dtype == deepseek.float32


def test_affinities_as_probabilities() -> None:
    router = moe.DynamicRouter(E, 2, 4, scoring="sigmoid")
    probs = moe.router_probabilities(router, deepseek.randn(7, E))
    np.testing.assert_allclose(probs.sum(-1).numpy(), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (RuntimeError, "num_experts=7", lambda p, c: moe.moe_balance_loss(p, 7)),
        (RuntimeError, "padding_mask must be", lambda p, c: moe.moe_balance_loss(p, E, padding_mask=c[0, 0] > 0)),
        (TypeError, "must be bool", lambda p, c: moe.router_z_loss(p, padding_mask=c)),
        (RuntimeError, "indices must be", lambda p, c: moe.load_balancing_loss(p, c[:2])),
        (RuntimeError, "batch, length, experts", lambda p, c: moe.sequence_balance_loss(p[0], c[0])),
        (ValueError, "no DynamicRouter", lambda p, c: moe.update_selection_bias(moe.DynamicRouter(4, 2, 4))),
    ],
)
def test_bad_input(error: type[Exception], text: str, call: Any) -> None:
    _, probs, chosen, _ = draw()
    with pytest.raises(error, match=text):
        call(probs, chosen)


def test_update_reaches_every_router() -> None:
    layers = deepseek.nn.Sequential(*[moe.DeepseekMoE(8, 4, 4, 1, topk_method="noaux_tc") for _ in range(2)])
    layers(deepseek.randn(16, 8))
    moe.update_selection_bias(layers, rate=0.25)
    for layer in layers:
        bias = layer.gate.e_score_correction_bias
        want = 0.25 * (layer.gate.load.double().mean() - layer.gate.load).sign()
        assert bias.tolist() == want.tolist() and bias.abs().sum().item() > 0


@pytest.mark.parametrize("loss", [moe.load_balancing_loss, moe.sequence_balance_loss])
@pytest.mark.parametrize("index", [E, E + 1, -2])
def test_experts_out_of_range(loss: Any, index: int) -> None:
    _, probs, chosen, _ = draw()
    chosen[0, 1, 0] = index
    with pytest.raises(IndexError, match=rf"{loss.__name__}: indices must be from 0 to 5.*got values from"):
        loss(probs, chosen)
    with pytest.raises(TypeError, match="indices must be integers"):
        loss(probs, chosen.float())


@pytest.mark.parametrize("seq_aux", [False, True])
def test_a_capacity_does_not_hide_what_was_chosen(seq_aux: bool) -> None:
    """f is the choice before dropping, as in Switch Transformer (eq. 5) and GShard, and as ``load`` counts."""
    deepseek.manual_seed(3)
    layer = moe.DeepseekMoE(8, 4, E, K, aux_loss_alpha=0.5, seq_aux=seq_aux, capacity_factor=0.5)
    x = deepseek.randn(B, L, 8)
    layer(x)
    routed = layer.gate.eval()(x)
    assert layer.gate.chosen is None and (routed.indices < 0).any()
    probs = F.softmax(routed.logits.double(), -1).detach()
    chosen = deepseek.topk(probs, K, -1)[1].numpy()
    assert np.bincount(chosen.ravel(), minlength=E).tolist() == layer.gate.load.tolist()
    rows = [(probs.numpy(), chosen)]
    if seq_aux:
        rows = list(zip(np.split(probs.numpy(), B), np.split(chosen, B), strict=True))
    assert layer.aux_loss.item() == pytest.approx(0.5 * np.mean([switch(*row) for row in rows]), rel=1e-5)


@pytest.mark.parametrize("seq_aux", [False, True])
@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 0, 8), (0, 8)])
def test_an_empty_batch_has_no_loss(seq_aux: bool, shape: tuple[int, ...]) -> None:
    layer = moe.DeepseekMoE(8, 8, 4, 2, aux_loss_alpha=0.1, n_shared_experts=1, seq_aux=seq_aux)
    out = layer(deepseek.randn(*shape))
    assert tuple(out.shape) == shape and layer.aux_loss.item() == 0
    (out.sum() + layer.aux_loss).backward()


def test_the_bias_goes_the_right_way_after_load_was_cleared() -> None:
    router = moe.DynamicRouter(4, 1, 4, selection_bias=True)
    router.load.copy_(deepseek.tensor([90, 10, 50, 50]))
    router.update_bias(1.0)
    assert router.e_score_correction_bias.tolist() == [-1.0, 1.0, 0.0, 0.0]
    router.load.copy_(deepseek.tensor([20, 0, 10, 10]))  # cleared by hand, and counted anew
    assert router.load_since_update().tolist() == [20, 0, 10, 10]
    router.update_bias(1.0)
    assert router.e_score_correction_bias.tolist() == [-2.0, 2.0, 0.0, 0.0]
    assert router.load_since_update().tolist() == [0] * 4


@pytest.mark.parametrize("options", [{"topk_method": "noaux_tc"}, {"hash_vocab_size": 9}])
def test_training_can_be_recorded(options: dict[str, Any]) -> None:
    """No check reads values back or keeps a tensor, which would make deepseek.jit run the step eagerly."""
    layer = moe.DeepseekMoE(8, 4, E, K, **options)

    def step(x: deepseek.Tensor, ids: deepseek.Tensor) -> deepseek.Tensor:
        loss = layer(x, token_ids=ids if layer.gate.tid2eid is not None else None).square().sum()
        loss.backward()
        if layer.gate.e_score_correction_bias is not None:
            layer.gate.update_bias()
        return loss

    recorded = deepseek.jit(step)
    for _ in range(3):
        recorded(deepseek.randn(L, 8), deepseek.randint(0, 9, (L,)))
    loss = deepseek.jit(moe.load_balancing_loss)
    for _ in range(3):
        loss(deepseek.rand(L, E), deepseek.randint(0, E, (L, K)))
    assert "runs eagerly" not in f"{recorded.explain()}{loss.explain()}"
