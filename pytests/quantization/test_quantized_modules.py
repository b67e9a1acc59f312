"""deepseek.quantization: mixtures of experts, and models whose weights were put into few bits."""

from __future__ import annotations

from typing import Any

import deepseek
import pytest
from deepseek import nn
from deepseek.models import LanguageModel, ModelConfig
from deepseek.nn import functional as F
from deepseek.quantization import (
    FORMATS,
    QuantizedLinear,
    QuantizedTensor,
    QuantizedWeight,
    qlinear,
    qmoe,
    quantize,
    quantize_,
)
from deepseek.quantization._formats import format_named

Tensor = deepseek.Tensor
# Of each format the default block size and the largest.
CASES = [(name, block) for name, first in FORMATS.items() for block in sorted({first, max(format_named(name).blocks)})]
each_case = pytest.mark.parametrize(("name", "block"), CASES, ids=[f"{n}-{b}" for n, b in CASES])


def mixture(tokens: int = 23, dim: int = 70, hidden: int = 33) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    deepseek.manual_seed(0)
    shapes = ((5, hidden, dim), (5, hidden, dim), (5, dim, hidden))
    weights = [deepseek.randn(*shape) * shape[2] ** -0.5 for shape in shapes]
    return deepseek.randn(tokens, dim), weights, deepseek.randint(0, 5, (tokens, 3)), deepseek.rand(tokens, 3)


def expert(stack: QuantizedTensor, e: int) -> QuantizedTensor:
    zeros = None if stack.zeros is None else stack.zeros[e]
    return QuantizedTensor(stack.codes[e], stack.scales[e], zeros, stack.format, stack.block, stack.shape[1:])


def loop(x: Tensor, *args: Any) -> Tensor:
    """qmoe for one token and one of its experts at a time."""
    gate, up, down, ids, w = args
    rows = []
    for t, chosen in enumerate(ids.tolist()):
        total = deepseek.zeros(x.shape[1])
        for k, e in enumerate(chosen):
            row = x[t : t + 1]
            hidden = F.swiglu(qlinear(row, expert(gate, e)), qlinear(row, expert(up, e)))
            total = total + qlinear(hidden.float(), expert(down, e))[0] * w[t, k]
        rows.append(total.to(x.dtype))
    return deepseek.stack(rows)


@each_case
def test_stacks_are_their_matrices(name: str, block: int) -> None:
    w = mixture(dim=150, hidden=140)[1][0]
    stack = quantize(w, name, block)
    assert stack.shape == w.shape and stack.nbytes == 5 * quantize(w[0], name, block).nbytes
    for e in range(5):
        one = quantize(w[e], name, block)
        assert (stack.codes[e].float() == one.codes.float()).all() and deepseek.equal(stack.scales[e], one.scales)
        assert deepseek.equal(stack.dequantize()[e], one.dequantize())
        assert deepseek.equal(expert(stack, e).dequantize(), one.dequantize())
    with pytest.raises(RuntimeError, match="must be one matrix"):
        qlinear(deepseek.randn(2, 150), stack)


@each_case
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_qmoe_is_the_loop_over_experts(name: str, block: int, dtype: str) -> None:
    x, weights, ids, w = mixture()
    x = x.to(getattr(deepseek, dtype))
    q = [quantize(stack, name, block) for stack in weights]
    got = qmoe(x, *q, ids, w)
    assert got.dtype == x.dtype
    if not format_named(name).whole_numbers and dtype == "bfloat16":  # hidden rows in float32 would be others
        assert deepseek.equal(got, F.moe(x, *[stack.dequantize(x.dtype) for stack in q], ids, w))
    else:
        assert deepseek.equal(got, loop(x, *q, ids, w))


def test_down_may_have_another_format() -> None:
    x, weights, ids, w = mixture()
    gate, up = (quantize(stack, "int4") for stack in weights[:2])
    down = quantize(weights[2], "int8")
    assert deepseek.equal(qmoe(x, gate, up, down, ids, w), loop(x, gate, up, down, ids, w))
    with pytest.raises(ValueError, match="one format and block, got int4 of 32 and int8 of 0"):
        qmoe(x, gate, quantize(weights[1], "int8"), down, ids, w)
    with pytest.raises(ValueError, match="fp8 goes with fp8 alone"):
        qmoe(x, gate, up, quantize(weights[2], "fp8"), ids, w)


@each_case
def test_gradients_are_those_of_the_dequantized_weights(name: str, block: int) -> None:
    x, weights, ids, w = mixture()
    q = [quantize(stack, name, block) for stack in weights]
    x.requires_grad_(True), w.requires_grad_(True)
    g = deepseek.randn(*x.shape)
    got = deepseek.autograd.grad(qmoe(x, *q, ids, w), [x, w], [g], create_graph=True)
    want = deepseek.autograd.grad(F.moe(x, *[stack.dequantize() for stack in q], ids, w), [x, w], [g])
    assert all(deepseek.equal(a, b) for a, b in zip(got, want, strict=True))
    second = deepseek.autograd.grad(got[0].square().sum(), [w])[0]
    assert second.abs().max() > 0


def test_scales_that_require_grad_are_refused() -> None:
    x, weights, ids, w = mixture()
    q = [quantize(stack, "int8") for stack in weights]
    q[2].scales.requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"qmoe\(\): codes and scales are not differentiable"):
        qmoe(x, *q, ids, w)


def test_packed_stacks_are_made_once() -> None:
    x, weights, ids, w = mixture()
    q = [quantize(stack, "int8") for stack in weights]
    first = qmoe(x, *q, ids, w)
    before = deepseek.memory_stats()["allocated_bytes"]
    assert deepseek.equal(qmoe(x, *q, ids, w), first)
    assert deepseek.memory_stats()["allocated_bytes"] == before
    q[0].scales.mul_(2)
    assert not deepseek.equal(qmoe(x, *q, ids, w), first)


def test_autocast() -> None:
    x, weights, ids, w = mixture()
    q = [quantize(stack, "int8") for stack in weights]
    matrix, bias = quantize(weights[0][0], "int8"), deepseek.randn(33)
    with deepseek.amp.autocast("cpu", dtype=deepseek.bfloat16):
        assert deepseek.equal(qmoe(x, *q, ids, w), qmoe(x.bfloat16(), *q, ids, w))
        assert deepseek.equal(qlinear(x, matrix, bias), qlinear(x.bfloat16(), matrix, bias.bfloat16()))
        assert qlinear(x, matrix).dtype == qmoe(x, *q, ids, w).dtype == deepseek.bfloat16
        assert qlinear(x.double(), matrix).dtype == deepseek.float64


def model() -> LanguageModel:
    """Every token goes to both experts: a choice would jump with the last bit."""
    deepseek.manual_seed(0)
    config = ModelConfig(dim=64, n_layers=2, expert_dim=48, n_routed_experts=2, ngram_rows=64, ngram_orders=(2,))
    return LanguageModel(config).eval()


def with_rounded_weights(net: LanguageModel, quantized: LanguageModel) -> LanguageModel:
    """The float model with the values that a quantized one stands for."""
    values = {name: m.value().dequantize() for name, m in quantized.named_modules() if isinstance(m, QuantizedWeight)}
    with deepseek.no_grad():
        for name, value in values.items():
            net.get_parameter(name).copy_(value)
    return net


@each_case
def test_a_model_is_quantized_in_place(name: str, block: int) -> None:
    net, tokens = model(), deepseek.arange(40).reshape(2, 20)
    with deepseek.no_grad():
        assert quantize_(net, name, block) is net
        want, got = with_rounded_weights(model(), net)(tokens), net(tokens)
    error = (got - want).square().mean().sqrt() / want.square().mean().sqrt()
    assert error.item() < (0.03 if format_named(name).whole_numbers else 1e-5), error
    kinds = {type(module) for module in net.modules()}
    assert QuantizedLinear in kinds and QuantizedWeight in kinds and nn.Linear not in kinds
    # A state dict goes to another model that was quantized alike.
    other = quantize_(LanguageModel(net.config).eval(), name, block)
    other.load_state_dict(net.state_dict())
    with deepseek.no_grad():
        assert deepseek.equal(other(tokens), got)


def test_what_stays() -> None:
    class Own(nn.Linear):
        pass

    shared = nn.Linear(8, 8)
    net = nn.Sequential(shared, nn.Sequential(shared, Own(8, 8)), nn.LayerNorm(8), nn.Linear(8, 4, bias=False))
    bias = shared.bias
    quantize_(net, "int8", skip=lambda name, _: name == "3")
    assert isinstance(net[0], QuantizedLinear) and net[0] is net[1][0] and net[0].bias is bias
    assert type(net[1][1]) is Own and type(net[3]) is nn.Linear
    assert repr(net[0]) == (
        "QuantizedLinear(\n  in_features=8, out_features=8, bias=True\n"
        "  (weight): QuantizedWeight(8 x 8, int8, block=0)\n)"
    )
    nested = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))), nn.Linear(4, 4))
    quantize_(nested, skip=lambda name, _: name == "0")  # and all that is in it
    assert [type(m) for m in nested.modules() if "Linear" in type(m).__name__] == [
        nn.Linear,
        nn.Linear,
        QuantizedLinear,
    ]
    twice = nn.Sequential(shared := nn.Linear(4, 4), shared)
    assert quantize_(twice)[0] is twice[1] and isinstance(twice[1], QuantizedLinear)
    quantize_(net)  # what is quantized stays as it is
    assert isinstance(net[3], QuantizedLinear) and isinstance(net[0].weight, QuantizedWeight)
    with pytest.raises(ValueError, match="QuantizedLinear"):
        quantize_(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="format must be .* got 'int3'"):
        quantize_(nn.Sequential(nn.Linear(2, 2)), "int3")


def test_converting_a_quantized_model() -> None:
    net = quantize_(nn.Sequential(nn.Linear(64, 8)), "int4_zero").bfloat16()
    weight = net[0].weight
    assert weight.scales.dtype == deepseek.float32 and weight.codes.dtype == deepseek.uint8
    assert net[0].bias.dtype == deepseek.bfloat16 and net(deepseek.randn(2, 64).bfloat16()).dtype == deepseek.bfloat16
    value = weight.value()
    assert deepseek.equal(value.dequantize(), QuantizedTensor.dequantize(value)) and value.shape == (8, 64)


def test_captured_functions() -> None:
    x, weights, ids, w = mixture()
    q = [quantize(stack, "int4") for stack in weights]
    matrix, residual = quantize(weights[0][0], "int8"), deepseek.randn(23, 33)
    experts = deepseek.jit(lambda x: qmoe(x, *q, ids, w))
    fused = deepseek.jit(lambda x: qlinear(x, matrix, None, "silu", residual))
    with deepseek.no_grad():
        for _ in range(2):
            assert deepseek.equal(experts(x), qmoe(x, *q, ids, w))
            assert deepseek.equal(fused(x), qlinear(x, matrix, None, "silu", residual))
