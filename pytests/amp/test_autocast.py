"""autocast: what is cast to what, mixed dtypes, losses in float32. Against torch: parity/test_autocast_table.py."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import deepseek
import deepseek.nn.functional as F
import pytest
from deepseek import bfloat16, float16, float32, float64

LOW = (bfloat16, float16)


def logits(dtype: Any) -> Any:
    return deepseek.tensor([[1.0, 2.0, 0.5], [0.25, -1.0, 3.0]], dtype=dtype)


EXACT = (math.log(math.e + math.e**2 + math.e**0.5) - 1 + math.log(math.e**0.25 + math.e**-1 + math.e**3) + 1) / 2


@pytest.mark.parametrize("dtype", LOW)
def test_a_loss_is_float32(dtype: Any) -> None:
    x, target = logits(dtype), deepseek.tensor([0, 1])
    with deepseek.autocast("cpu", dtype=dtype):
        loss = F.cross_entropy(x, target)
        nll = F.nll_loss(F.log_softmax(x.float(), -1), target)
    assert loss.dtype is float32 and nll.dtype is float32
    assert loss.item() == pytest.approx(EXACT, rel=1e-6) and nll.item() == pytest.approx(EXACT, rel=1e-6)


def test_many_rows_do_not_overflow_float16() -> None:
    x = deepseek.zeros(9000, 4, dtype=float16)
    x[:, 0] = 20.0
    target = deepseek.ones(9000, dtype=deepseek.int64)
    with deepseek.autocast("cpu", dtype=float16):
        assert F.cross_entropy(x, target).item() == pytest.approx(20.0, rel=1e-6)
        assert F.cross_entropy(x, target, reduction="sum").item() == pytest.approx(180000.0, rel=1e-6)
    # Outside too: the sum over the rows is float32, the mean is rounded at the end.
    assert F.cross_entropy(x, target).item() == 20.0 and F.cross_entropy(x, target).dtype is float16
    assert F.nll_loss(-x, deepseek.zeros(9000, dtype=deepseek.int64)).item() == 20.0


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "mse_loss": F.mse_loss,
    "mse_loss, weight": lambda a, b: F.mse_loss(a, b, weight=a),
    "l1_loss": F.l1_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "huber_loss": F.huber_loss,
    "binary_cross_entropy": F.binary_cross_entropy,
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
    "kl_div": lambda a, b: F.kl_div(a, b, reduction="batchmean"),
    "cross_entropy": F.cross_entropy,
    "nll_loss": lambda a, b: F.nll_loss(a, deepseek.zeros(2, dtype=deepseek.int64)),
    "linear_cross_entropy": lambda a, b: F.linear_cross_entropy(a, b, deepseek.zeros(2, dtype=deepseek.int64)),
}


def test_every_loss_is_listed() -> None:
    written = {n for n in F.__all__ if n.endswith("_loss") or "cross_entropy" in n or n == "kl_div"}
    assert written == {name.partition(",")[0] for name in LOSSES}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("lower", LOW)
def test_losses_take_any_floats(name: str, lower: Any) -> None:
    a = deepseek.tensor([[0.25, 0.5, 0.75], [0.125, 0.5, 0.875]])
    for first in (float32, *LOW):
        for second in (float32, *LOW):
            x = a.clone().to(first).requires_grad_()
            with deepseek.autocast("cpu", dtype=lower):
                loss = LOSSES[name](x, a.flip(1).to(second))
            loss.backward()
            assert loss.dtype is float32 and x.grad.dtype is first and bool(x.grad.isfinite().all())
    with deepseek.autocast("cpu", dtype=lower):
        assert LOSSES[name](a.double(), a.double()).dtype is float64


PRODUCTS: dict[str, Callable[..., Any]] = {
    "matmul": lambda a, b, c: a @ b,
    "linear": lambda a, b, c: F.linear(a, b, c[0]),
    "addmm": lambda a, b, c: deepseek.addmm(c, a, b),
    "baddbmm": lambda a, b, c: deepseek.baddbmm(c[None], a[None], b[None]),
    "einsum": lambda a, b, c: deepseek.einsum("ij,jk->ik", a, b),
    "tensordot": lambda a, b, c: deepseek.tensordot(a, b, 1),
    "attention": lambda a, b, c: F.scaled_dot_product_attention(a, b, b, c),
    "attention of our own": lambda a, b, c: F.attention(a, b, c, mask=c),
    "varlen_attention": lambda a, b, c: F.varlen_attention(
        a[:, None], b[:, None], c[:, None], deepseek.tensor([0, 4]), deepseek.tensor([0, 4])
    ),
    "moe": lambda a, b, c: F.moe(
        a, b[None], c[None], b[None], deepseek.zeros(4, 1, dtype=deepseek.int64), deepseek.ones(4, 1)
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("lower", LOW)
def test_products_take_mixed_dtypes(name: str, lower: Any) -> None:
    base = deepseek.arange(16.0).reshape(4, 4) / 16
    dtypes = (float32, bfloat16, float16)
    for i in range(27):
        inputs = [base.roll(n, 1).to(dtypes[i // 3**n % 3]).requires_grad_() for n in range(3)]
        with deepseek.autocast("cpu", dtype=lower):
            result = PRODUCTS[name](*inputs)
        assert result.dtype is lower
        result.float().sum().backward()
        assert all(x.grad is None or x.grad.dtype is x.dtype for x in inputs)


def test_what_is_not_cast() -> None:
    a, v = deepseek.ones(3, 3), deepseek.ones(3)
    with deepseek.autocast("cpu"):
        assert deepseek.mv(a, v).dtype is float32 and deepseek.dot(v, v).dtype is float32
        assert deepseek.tensordot(a, a).dtype is float32 and deepseek.tensordot(v, v.bfloat16(), 1).dtype is bfloat16
        assert deepseek.addmv(v, a, v).dtype is float32 and F.bilinear(a, a, a[None]).dtype is float32
        assert deepseek.softmax(a.bfloat16(), -1).dtype is bfloat16 and deepseek.exp(v.half()).dtype is float16
        # In place, and into a given tensor, what is there counts.
        assert deepseek.zeros(3, 3).addmm_(a, a).dtype is float32
        assert deepseek.mm(a, a, out=deepseek.empty(3, 3)).dtype is float32
        assert (a.double() @ a.double()).dtype is float64
        with pytest.raises(RuntimeError, match="same dtype"):
            _ = a.double() @ a
    with pytest.raises(RuntimeError, match="same dtype, but got float32, bfloat16 and bfloat16"):
        deepseek.addmm(a, a.bfloat16(), a.bfloat16())


def test_what_is_widened() -> None:
    x = deepseek.ones(3, 3, dtype=bfloat16)
    with deepseek.autocast("cpu"):
        assert x.prod().dtype is float32 and x.trace().dtype is float32
        assert F.pad(x, (1, 1), mode="reflect").dtype is float32 and F.pad(x, (1, 1)).dtype is bfloat16
        assert x[0].index_copy(0, deepseek.tensor([1]), deepseek.ones(1)).dtype is float32
    assert x.prod().dtype is bfloat16 and x.trace().dtype is bfloat16


@pytest.mark.parametrize("need_weights", (True, False))
@pytest.mark.parametrize("lower", LOW)
def test_multihead_attention_with_masks(need_weights: bool, lower: Any) -> None:
    attention = deepseek.nn.MultiheadAttention(8, 2, batch_first=True)
    x = deepseek.randn(2, 5, 8)
    later = deepseek.ones(5, 5, dtype=deepseek.bool).triu(1)
    padding = deepseek.tensor([[False] * 5, [False] * 3 + [True] * 2])
    want, _ = attention(x, x, x, attn_mask=later, key_padding_mask=padding, need_weights=need_weights)
    for masks in (later, deepseek.zeros(5, 5).masked_fill(later, -math.inf)):
        with deepseek.autocast("cpu", dtype=lower):
            found, weights = attention(x, x, x, attn_mask=masks, key_padding_mask=padding, need_weights=need_weights)
        assert found.dtype is lower and (weights is None or weights.dtype is lower)
        assert (found.float() - want).abs().max().item() < 0.02


@pytest.mark.parametrize("dtype", (bfloat16, float16, float64))
@pytest.mark.parametrize("dims", (2, 4, 5))
def test_attention_takes_a_float32_mask(dtype: Any, dims: int) -> None:
    """Outside autocast too: a mask is often made before anybody knows what the model computes in."""
    q = deepseek.randn(*(1,) * (dims - 2), 3, 4).to(dtype)
    mask = deepseek.tensor([[0.0, -math.inf, -1.0], [0.5, 0.0, -2.0], [-math.inf, 1.0, 0.0]])
    found = F.scaled_dot_product_attention(q, q, q, mask)
    want = F.scaled_dot_product_attention(q.double(), q.double(), q.double(), mask.double())
    assert found.dtype is dtype and (found.double() - want).abs().max().item() < 0.02
    with pytest.raises(RuntimeError, match="Expected attn_mask dtype to be bool or float or to match query dtype"):
        F.scaled_dot_product_attention(q.float(), q.float(), q.float(), mask.bfloat16())


def test_a_jit_function_keeps_the_casts() -> None:
    def step(x: Any, w: Any) -> Any:
        with deepseek.autocast("cpu", dtype=bfloat16):
            return F.mse_loss(x @ w, x.bfloat16())

    x, w = deepseek.randn(4, 4), deepseek.randn(4, 4, requires_grad=True)
    compiled = deepseek.jit(step)
    for _ in range(3):
        found, want = compiled(x, w), step(x, w)
        assert found.dtype is float32 and found.item() == want.item()


def test_losses_keep_their_signatures_and_warn_at_the_caller() -> None:
    assert list(inspect.signature(F.mse_loss).parameters)[:2] == ["input", "target"]
    for loss in (F.l1_loss, F.mse_loss, F.huber_loss, F.smooth_l1_loss):
        with pytest.warns(UserWarning, match="differs from the input size") as caught:
            loss(deepseek.ones(2), deepseek.ones(1))
        assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="batchmean") as caught:
        F.kl_div(deepseek.ones(2), deepseek.ones(2))
    assert caught[0].filename == __file__
