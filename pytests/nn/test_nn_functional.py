"""deepseek.nn.functional: values at the edges, and first and second derivatives of every function."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.nn import functional as F
from deepseek.testing import assert_close, gradcheck, gradgradcheck
from hypothesis import given
from hypothesis import strategies as st

F64 = deepseek.float64


def rand(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0, grad: bool = True) -> deepseek.Tensor:
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return deepseek.tensor(values.tolist(), dtype=F64).reshape(shape).requires_grad_(grad)


# --- functions --------------------------------------------------------------------------------------------------------
T34 = rand(3, 4, seed=9, low=0.05, high=0.95, grad=False)
SMOOTH: dict[str, Callable[..., Any]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, "tanh"),
    "silu": F.silu,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "elu": lambda x: F.elu(x, 1.5),
    "leaky_relu": F.leaky_relu,
    "softplus": lambda x: F.softplus(x, 2.0),
    "softplus_over": lambda x: F.softplus(x, threshold=0.5),
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "softsign": F.softsign,
    "glu": F.glu,
    "softmax": lambda x: F.softmax(x, 0),
    "softmin": lambda x: F.softmin(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "swiglu": lambda x: F.swiglu(x, x * 2),
    "mse": lambda x: F.mse_loss(x, T34),
    "l1": lambda x: F.l1_loss(x, T34),
    "huber": lambda x: F.huber_loss(x, T34, delta=0.7),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, T34, beta=0.5),
    "bce_logits": lambda x: F.binary_cross_entropy_with_logits(x, T34),
    "bce_logits_weighted": lambda x: F.binary_cross_entropy_with_logits(x, T34, T34, pos_weight=T34[0] * 3),
    "bce": lambda x: F.binary_cross_entropy(x.sigmoid(), T34),
    "bce_target": lambda x: F.binary_cross_entropy(T34, x.sigmoid()),
    "kl": lambda x: F.kl_div(F.log_softmax(x, 1), T34, reduction="batchmean"),
    "kl_target": lambda x: F.kl_div(T34, x.exp(), reduction="sum"),
    "kl_log": lambda x: F.kl_div(x, x * 2, reduction="sum", log_target=True),
    "cross_entropy": lambda x: F.cross_entropy(x, deepseek.tensor([0, 3, 1])),
    "nll": lambda x: F.nll_loss(x, deepseek.tensor([0, 3, 1])),
    "normalize": F.normalize,
    "cosine": lambda x: F.cosine_similarity(x, T34),
    "distance": lambda x: F.pairwise_distance(x, T34),
    "pad": lambda x: F.pad(x, (1, -1, 0, 2), value=3.0),
    "pad_reflect": lambda x: F.pad(x, (2, 1), "reflect"),
    "pad_circular": lambda x: F.pad(x, (2, 1, 1, 0), "circular"),
    "bilinear": lambda x: F.bilinear(x, T34, rand(2, 4, 4, seed=4)),
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "embedding": lambda x: F.embedding(deepseek.tensor([[0, 2], [2, 2]]), x),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_functions_differentiate_twice(name: str) -> None:
    x = rand(3, 4, seed=5)
    assert gradcheck(SMOOTH[name], x) and gradgradcheck(SMOOTH[name], x)


SPECIAL = [0.0, -0.0, 1e3, -1e3, 30.0, -30.0, math.inf, -math.inf]


@pytest.mark.parametrize("fn", [F.elu, F.softplus, F.logsigmoid, F.mish, F.hardswish, F.leaky_relu, F.relu6, F.silu])
def test_activations_stay_finite(fn: Callable[..., Any]) -> None:
    x = deepseek.tensor(SPECIAL[:6], requires_grad=True)
    (grad,) = deepseek.autograd.grad(fn(x).sum(), x, create_graph=True)
    second = [deepseek.autograd.grad(grad.sum(), x)[0]] if grad.requires_grad else []
    for values in (fn(x), grad, *second):
        assert bool(deepseek.isfinite(values).all()), values


def test_logits_loss_at_zero_and_far_out() -> None:
    x = deepseek.tensor([0.0, 200.0, -200.0], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, deepseek.tensor([1.0, 0.0, 1.0]), reduction="none")
    assert_close(loss, deepseek.tensor([math.log(2), 200.0, 200.0]))
    loss.sum().backward()
    assert x.grad.tolist() == [-0.5, 1.0, -1.0]


def test_bce_at_the_ends() -> None:
    p = deepseek.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    loss = F.binary_cross_entropy(p, deepseek.tensor([0.0, 1.0, 1.0, 0.0]), reduction="none")
    assert loss.tolist() == [0.0, 0.0, 100.0, 100.0]
    loss.sum().backward()
    assert_close(p.grad, deepseek.tensor([0.0, 0.0, -1e12, 1e12]))
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        F.binary_cross_entropy(deepseek.tensor([1.5]), deepseek.tensor([1.0]))
    with pytest.raises(ValueError, match="size"):
        F.binary_cross_entropy(deepseek.ones(2), deepseek.ones(3))


def test_kl_div_with_zero_target() -> None:
    log_p = deepseek.tensor([-1.0, -2.0], requires_grad=True)
    target = deepseek.tensor([0.0, 1.0], requires_grad=True)
    F.kl_div(log_p, target, reduction="sum").backward()
    assert log_p.grad.tolist() == [-0.0, -1.0] and math.isfinite(target.grad[0].item())


def test_losses_warn_and_refuse() -> None:
    with pytest.warns(UserWarning, match="broadcasting"):
        F.mse_loss(deepseek.ones(3, 1), deepseek.ones(3))
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        with pytest.raises(ValueError, match="not a valid value for reduction"):
            loss(deepseek.ones(2), deepseek.ones(2), reduction="average")
    with pytest.raises(ValueError, match="reduction='mean'"):
        nn.MSELoss(size_average=True)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="batchmean"):
        F.kl_div(deepseek.zeros(2, 2), deepseek.ones(2, 2))


@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss])
def test_loss_modules_reduce(loss: Any) -> None:
    x, y = rand(3, 4), rand(3, 4, seed=1, low=0, high=1, grad=False)
    parts = loss(reduction="none")(x, y)
    assert parts.shape == (3, 4)
    assert_close(loss()(x, y), parts.mean())
    assert_close(loss(reduction="sum")(x, y), parts.sum())


def test_one_hot_and_pad() -> None:
    assert F.one_hot(deepseek.tensor([[0], [2]])).tolist() == [[[1, 0, 0]], [[0, 0, 1]]]
    assert F.one_hot(deepseek.tensor([1]), 4).tolist() == [[0, 1, 0, 0]]
    x = deepseek.arange(4).reshape(2, 2)
    assert F.pad(x, (1, 0, 0, 1), value=9).tolist() == [[9, 0, 1], [9, 2, 3], [9, 9, 9]]
    assert F.pad(x, (-1, 1)).tolist() == [[1, 0], [3, 0]]
    assert F.pad(x, (2, 1), "replicate").tolist() == [[0, 0, 0, 1, 1], [2, 2, 2, 3, 3]]
    assert F.pad(x, (1, 1), "reflect").tolist() == [[1, 0, 1, 0], [3, 2, 3, 2]]
    for args, error in (((3,), RuntimeError), ((0, 0) * 3, RuntimeError), ((-2, -1), RuntimeError)):
        with pytest.raises(error):
            F.pad(x, args)
    with pytest.raises(RuntimeError, match="too large"):
        F.pad(x, (2, 0), "reflect")
    with pytest.raises(RuntimeError, match="smaller than num_classes"):
        F.one_hot(deepseek.tensor([3]), 3)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_pad_agrees_with_numpy(shape: list[int], data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    widths = []
    for size in shape:
        limit = {"constant": 3, "reflect": size - 1, "replicate": 3, "circular": size}[mode]
        widths.append((data.draw(st.integers(0, limit)), data.draw(st.integers(0, limit))))
    array = np.arange(math.prod(shape)).reshape(shape)
    name = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    amounts = [n for pair in reversed(widths) for n in pair]
    got = F.pad(deepseek.tensor(array.tolist()).reshape(shape), amounts, mode)
    assert got.tolist() == np.pad(array, widths, mode=name).tolist()


# --- packed sequences -------------------------------------------------------------------------------------------------
def test_varlen_attention_is_attention_of_each_sequence() -> None:
    cu_q, cu_k = [0, 70, 70, 75], [0, 90, 93, 98]
    deepseek.manual_seed(0)
    q, k, v = (deepseek.randn(n, h, 32, requires_grad=True) for n, h in ((75, 4), (98, 2), (98, 2)))
    rule: dict[str, Any] = {"is_causal": True, "window": 40, "enable_gqa": True}
    packed = F.varlen_attention(q, k, v, deepseek.tensor(cu_q), deepseek.tensor(cu_k), **rule)
    grads = deepseek.autograd.grad(packed.square().sum(), [q, k, v])
    for i in range(3):
        rows, keys = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
        alone = [x.detach()[at].requires_grad_(True) for x, at in ((q, rows), (k, keys), (v, keys))]
        y = F.attention(*(x.transpose(0, 1) for x in alone), **rule).transpose(0, 1)
        assert (y == packed[rows]).all()
        expected = deepseek.autograd.grad(y.square().sum(), alone)
        for got, want, at in zip(grads, expected, (rows, keys, keys), strict=True):
            assert (got[at] == want).all()


def test_varlen_attention_reads_strided_tensors() -> None:
    deepseek.manual_seed(0)
    q, k, v = (deepseek.randn(2, 30, 32).transpose(0, 1)[:, :, ::stride] for stride in (1, 2, 2))
    q, cu = q[:, :, :16], deepseek.tensor([0, 5, 12, 7, 30, 9])[::2].to(deepseek.int32)
    packed = F.varlen_attention(q, k, v, cu, cu, is_causal=True)
    dense = F.varlen_attention(*(x.contiguous() for x in (q, k, v, cu, cu)), is_causal=True)
    assert packed.equal(dense)


def test_varlen_attention_is_one_op_of_a_captured_function() -> None:
    """One node of the graph, and other starts need no second capture."""
    deepseek.manual_seed(0)
    q, k, v = (deepseek.randn(30, 2, 16) for _ in range(3))
    captured = deepseek.jit(lambda q, k, v, cu: F.varlen_attention(q, k, v, cu, cu, is_causal=True))
    for starts in ([0, 12, 30], [0, 7, 30], [0, 29, 30]):
        cu = deepseek.tensor(starts)
        assert captured(q, k, v, cu).equal(F.varlen_attention(q, k, v, cu, cu, is_causal=True))
    assert captured.graph().count("_varlen_attention(") == 1
    with pytest.raises(IndexError):
        captured.graph(1)


def test_varlen_attention_refuses_wrong_starts() -> None:
    q, good = deepseek.randn(5, 2, 4), deepseek.tensor([0, 2, 5])
    for wrong in ([0, 2, 4], [1, 5], [0, 3, 2, 5], [0]):
        with pytest.raises(ValueError, match="cu_seq_q must rise from 0 to the number of packed tokens, 5"):
            F.varlen_attention(q, q, q, deepseek.tensor(wrong), good)
    with pytest.raises(ValueError, match="each query sequence needs its key sequence"):
        F.varlen_attention(q, q, q, good, deepseek.tensor([0, 5]))


def test_attention_with_a_cache_equals_the_whole() -> None:
    """Token by token with a growing cache, in pieces, and at once: the same bits."""
    deepseek.manual_seed(0)
    q, k, v = (deepseek.randn(1, h, 40, 64) for h in (4, 2, 2))
    for dtype in (deepseek.float32, deepseek.bfloat16):
        a, b, c = q.to(dtype), k.to(dtype), v.to(dtype)
        rule: dict[str, Any] = {"is_causal": True, "window": 17, "enable_gqa": True}
        whole = F.attention(a, b, c, **rule)
        for step in (1, 7):
            for i in range(0, 40, step):
                end = min(40, i + step)
                piece = F.attention(a[:, :, i:end], b[:, :, :end], c[:, :, :end], query_start=i, **rule)
                assert (piece == whole[:, :, i:end]).all()


def test_a_sink_of_minus_infinity_has_gradient_zero_where_no_key_is_seen() -> None:
    for dtype in (deepseek.float32, deepseek.float64):
        q, k, v = (deepseek.randn(1, 3, 4, dtype=dtype) for _ in range(3))
        sinks = deepseek.tensor([-math.inf], dtype=dtype).requires_grad_()
        F.attention(q, k, v, sinks=sinks, mask=deepseek.zeros(3, 3, dtype=deepseek.bool)).sum().backward()
        assert sinks.grad.tolist() == [0]


def test_attention_over_an_int8_cache() -> None:
    """Near attention over floats; with a growing cache the bits of the whole; what is refused."""
    deepseek.manual_seed(0)
    q, k, v = (deepseek.randn(1, h, 40, 64) for h in (4, 2, 2))
    (kc, ks), (vc, vs) = F.quantize_rows(k), F.quantize_rows(v)
    rule: dict[str, Any] = {"is_causal": True, "window": 17, "enable_gqa": True, "sinks": deepseek.randn(4)}
    for dtype, near in ((deepseek.float32, 0.015), (deepseek.bfloat16, 0.02)):
        whole = F.attention(q.to(dtype), kc, vc, key_scale=ks, value_scale=vs, **rule)
        exact = F.attention(q, k, v, **rule)
        assert (whole.float() - exact).norm().item() < near * exact.norm().item()
        for i in range(40):
            cache = (kc[:, :, : i + 1], vc[:, :, : i + 1])
            now = {"key_scale": ks[:, :, : i + 1], "value_scale": vs[:, :, : i + 1], "query_start": i}
            assert F.attention(q[:, :, i : i + 1].to(dtype), *cache, **now, **rule).equal(whole[:, :, i : i + 1])
    turned = F.attention(q[0], kc[0], vc[0], key_scale=ks[0], value_scale=vs[0], enable_gqa=True)  # without a batch
    assert turned.equal(F.attention(q, kc, vc, key_scale=ks, value_scale=vs, enable_gqa=True)[0])
    with pytest.raises(RuntimeError, match="need both key_scale and value_scale"):
        F.attention(q, kc, vc, key_scale=ks, enable_gqa=True)
    with pytest.raises(RuntimeError, match="need both key_scale and value_scale"):
        F.attention(q, kc, vc, enable_gqa=True)
    with pytest.raises(RuntimeError, match="no dropout"):
        F.attention(q, kc, vc, key_scale=ks, value_scale=vs, enable_gqa=True, dropout_p=0.5)
    with pytest.raises(RuntimeError, match="has no gradients"):
        F.attention(q.clone().requires_grad_(), kc, vc, key_scale=ks, value_scale=vs, enable_gqa=True)
    with pytest.raises(RuntimeError, match="must be int8"):
        F.attention(q, k, v, key_scale=ks, value_scale=vs, enable_gqa=True)


def test_block_sparse_attention_with_a_group_larger_than_the_queries() -> None:
    q, k, blocks = deepseek.randn(1, 1, 100, 16), deepseek.randn(1, 1, 64, 16), deepseek.zeros(1, 1, 1, 1).long()
    expected = F.block_sparse_attention(q, k, k, blocks, group=100)
    assert F.block_sparse_attention(q, k, k, blocks, group=2**62).equal(expected)
    assert F.block_sparse_attention(q, k, k, blocks, group=2**40, block_size=2**63 - 16).equal(expected)


def test_positions_that_overflow_are_refused() -> None:
    q, k = deepseek.randn(1, 1, 1, 16), deepseek.randn(1, 1, 64, 16)
    with pytest.raises(RuntimeError, match="2\\^30"):
        F.attention(q, k, k, is_causal=True, query_start=2**63 - 1)
    x = deepseek.randn(1, 1, 4, 8, dtype=deepseek.float64)
    assert F.attention(x, x, x, window=2**63 - 1).equal(F.attention(x, x, x))


def test_rope_refuses_tables_without_dims() -> None:
    with pytest.raises(RuntimeError, match="do not broadcast"):
        F.rope(deepseek.randn(2, 256), deepseek.tensor(1.0), deepseek.tensor(0.0))


def test_attention_reads_masks_with_negative_strides() -> None:
    mask = deepseek.from_dlpack(np.zeros(2, np.float32)[::-1].reshape(2, 1, 1, 1))
    q = deepseek.randn(2, 1, 3, 16)
    masked = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    assert masked.allclose(F.scaled_dot_product_attention(q, q, q))


def test_what_is_no_tensor_is_refused_by_name() -> None:
    """Every function, each parameter that is a tensor: no AttributeError of the str's."""
    seen = 0
    for name in F.__all__:
        parameters = inspect.signature(getattr(F, name)).parameters.values()
        for wrong in parameters:
            if not str(wrong.annotation).startswith("Tensor"):
                continue
            needed = [p for p in parameters if p.default is p.empty or p is wrong]
            kinds = {"Tensor": deepseek.ones(2, 2), "Sequence": [1, 1]}
            values = {p.name: next((kinds[k] for k in kinds if k in str(p.annotation)), 2) for p in needed}
            values[wrong.name] = "a"
            seen += 1
            try:
                getattr(F, name)(**values)
            except AttributeError as error:
                raise AssertionError(f"{name}({wrong.name}='a'): {error}") from None
            except TypeError as error:
                assert re.search("argument|must be", str(error)), f"{name}({wrong.name}='a'): {error}"
            except (ValueError, RuntimeError):
                pass
    assert seen > 100
