"""deepseek.quantization: weights in few bits, their errors, products, gradients and packed copies."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from deepseek import _C, nn
from deepseek.quantization import FORMATS, QuantizedTensor, dequantize, int_mm, qlinear, quantize
from deepseek.quantization._formats import format_named

CASES = [(name, block) for name in FORMATS for block in format_named(name).blocks]
each_case = pytest.mark.parametrize(("name", "block"), CASES, ids=[f"{n}-{b}" for n, b in CASES])
# Of normal weights: root of the mean square of the error, as a share of theirs (bounds 3 % above what is measured);
# largest error, as a share of the largest weight. A format without a row is held against the widest bounds.
ERRORS = {
    ("int8", 0): (0.0081, 0.5 / 127), ("int8", 32): (0.0055, 0.5 / 127), ("int8", 64): (0.0061, 0.5 / 127),
    ("int8", 128): (0.0067, 0.5 / 127), ("int4", 32): (0.0885, 1 / 8), ("int4", 64): (0.098, 1 / 8),
    ("int4", 128): (0.1065, 1 / 8), ("int4_zero", 32): (0.083, 0.5 / 7.5), ("int4_zero", 64): (0.0935, 0.5 / 7.5),
    ("int4_zero", 128): (0.1035, 0.5 / 7.5), ("fp8", 128): (0.0273, 1 / 16),
}  # fmt: skip


def weight(*shape: int, seed: int = 0) -> deepseek.Tensor:
    deepseek.manual_seed(seed)
    return deepseek.randn(*shape) * 0.02


@each_case
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_error_table(name: str, block: int, dtype: str) -> None:
    w = weight(384, 1000).to(getattr(deepseek, dtype))
    error = quantize(w, name, block).dequantize(deepseek.float64) - w.double()
    rms = (error.square().mean().sqrt() / w.double().square().mean().sqrt()).item()
    most = (error.abs().max() / w.double().abs().max()).item()
    bounds = ERRORS.get((name, block), tuple(map(max, zip(*ERRORS.values(), strict=True))))
    assert rms <= bounds[0] and most <= 1.02 * bounds[1], (rms, most)
    assert rms > 0.95 * bounds[0] or (name, block) not in ERRORS, "the bound is too loose"


@each_case
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_product_error(name: str, block: int, dtype: str) -> None:
    """Of the product: the weight's error, the input's (about 1 % of a row in 127 steps), and the result's dtype's."""
    w, x = weight(96, 500), weight(33, 500, seed=1).to(getattr(deepseek, dtype))
    q = quantize(w, name, block)
    exact = x.double() @ q.dequantize(deepseek.float64).t()
    error = (qlinear(x, q).double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    bound = {"float32": 1e-6, "bfloat16": 4e-3}[dtype] if not format_named(name).whole_numbers else 0.012
    assert error.item() < bound


@each_case
def test_round_trip_is_exact(name: str, block: int) -> None:
    q = quantize(weight(131, 301), name, block)
    again = quantize(q.dequantize(), name, block)
    for part in ("codes", "scales"):
        a, b = getattr(q, part).float(), getattr(again, part).float()
        assert a.dtype == b.dtype and (a == b).all()
    assert (q.zeros is not None) == format_named(name).has_zeros
    if q.zeros is not None:
        assert again.zeros is not None and (q.zeros == again.zeros).all()


@each_case
def test_gradients_are_those_of_the_dequantized_weight(name: str, block: int) -> None:
    q = quantize(weight(17, 70), name, block)
    x, bias = deepseek.randn(2, 3, 70, requires_grad=True), deepseek.randn(17, requires_grad=True)
    g = deepseek.randn(2, 3, 17)
    got = deepseek.autograd.grad(qlinear(x, q, bias), [x, bias], [g], create_graph=True)
    want = deepseek.autograd.grad(nn.functional.linear(x, q.dequantize(), bias), [x, bias], [g])
    for a, b in zip(got, want, strict=True):
        assert deepseek.equal(a, b)


ACTIVATIONS = {name: getattr(nn.functional, name, None) for name in _C._activations()} | {
    "none": lambda x: x,
    "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize(("name", "block"), FORMATS.items())
def test_fused_activation_and_residual_change_no_bits(activation: str, dtype: str, name: str, block: int) -> None:
    kind = getattr(deepseek, dtype)
    q, x = quantize(weight(75, 130), name, block), (50 * weight(2, 9, 130, seed=1)).to(kind)
    bias, residual = deepseek.randn(75).to(kind), deepseek.randn(2, 9, 75).to(kind)
    alone = ACTIVATIONS[activation](qlinear(x, q, bias))
    assert deepseek.equal(qlinear(x, q, bias, activation), alone)
    assert deepseek.equal(qlinear(x, q, bias, activation, residual), alone + residual)
    wide = residual.transpose(0, 1).contiguous().transpose(0, 1)
    assert deepseek.equal(qlinear(x, q, bias, activation, wide), alone + residual)
    # With gradients: the same values, and those of the separate operations.
    inputs = [t.detach().clone().requires_grad_(True) for t in (x, bias, residual)]
    y = qlinear(inputs[0], q, inputs[1], activation, inputs[2])
    want = ACTIVATIONS[activation](qlinear(inputs[0], q, inputs[1])) + inputs[2]
    assert deepseek.equal(y, want)
    g = deepseek.randn(*y.shape).to(kind)
    for a, b in zip(deepseek.autograd.grad(y, inputs, [g]), deepseek.autograd.grad(want, inputs, [g]), strict=True):
        assert deepseek.equal(a, b)


def test_bias_in_float32_and_what_is_refused() -> None:
    q, x, bias = quantize(weight(8, 64), "int8"), weight(3, 64, seed=1).bfloat16(), deepseek.randn(8)
    want = (qlinear(x.float(), q) + bias).bfloat16()
    assert (qlinear(x, q, bias).float() - want.float()).abs().max() < 0.02
    x.requires_grad_(True), bias.requires_grad_(True)
    qlinear(x, q, bias).sum().backward()
    assert bias.grad is not None and bias.grad.dtype == deepseek.float32 and (bias.grad == 3).all()
    with pytest.raises(RuntimeError, match="bias must be deepseek.float32 of shape"):
        qlinear(x.float(), q, bias.bfloat16())
    with pytest.raises(RuntimeError, match="bias must be deepseek.bfloat16 or float32 of shape"):
        qlinear(x, q, bias.double())
    for grad in (True, False):
        with deepseek.set_grad_enabled(grad):
            with pytest.raises(ValueError, match="'silu', 'sigmoid' or 'tanh', got 'elu'"):
                qlinear(x, q, activation="elu")
            with pytest.raises(RuntimeError, match=r"residual must be deepseek.bfloat16 of shape \[3, 8\]"):
                qlinear(x, q, residual=deepseek.randn(3, 8))


def test_scales_that_require_grad_are_refused() -> None:
    q = quantize(weight(8, 64), "int4")
    q.scales.requires_grad_(True)
    with pytest.raises(RuntimeError, match="not differentiable"):
        qlinear(weight(2, 64), q)
    with deepseek.no_grad():
        qlinear(weight(2, 64), q)


def test_a_write_to_codes_or_scales_counts() -> None:
    q, x = quantize(weight(40, 96), "int4"), weight(3, 96, seed=2)
    before = qlinear(x, q)
    assert deepseek.equal(before, qlinear(x, q))
    q.codes[5] = q.codes[6].clone()
    q.scales[5] = q.scales[6]
    changed = qlinear(x, q)
    assert deepseek.equal(changed[:, 5], before[:, 6]) and deepseek.equal(changed[:, :5], before[:, :5])
    q.scales.mul_(2)
    assert deepseek.equal(qlinear(x, q), 2 * changed)


def test_a_write_by_numpy_counts() -> None:
    q, x = quantize(weight(40, 96), "int8"), weight(3, 96, seed=2)
    before = qlinear(x, q)
    array = q.codes.numpy()
    assert deepseek.equal(before, qlinear(x, q))
    array[5] = array[6]
    q.scales.numpy()[5] = q.scales[6].item()
    assert deepseek.equal(qlinear(x, q)[:, 5], before[:, 6])
    address = quantize(weight(40, 96), "int8")
    qlinear(x, address)
    assert address.codes.data_ptr() > 0


def test_packed_weights_are_made_once_and_freed() -> None:
    q, x = quantize(weight(512, 1024), "int8"), weight(1, 1024)
    deepseek.zeros(1)
    before = deepseek.memory_stats()["allocated_bytes"]
    y = qlinear(x, q)
    packed = deepseek.memory_stats()["allocated_bytes"] - before
    assert 512 * 1024 <= packed < 600 * 1024
    for _ in range(3):
        y = qlinear(x, q)
    assert deepseek.memory_stats()["allocated_bytes"] - before == packed
    del y, q
    assert deepseek.memory_stats()["allocated_bytes"] < before


def test_captured_functions() -> None:
    q, x = quantize(weight(40, 96), "int4"), weight(3, 96)
    step = deepseek.jit(lambda x: qlinear(x, q).relu())
    assert deepseek.equal(step(x), step(x)) and deepseek.equal(step(x), qlinear(x, q).relu())


def test_parts_in_other_layouts() -> None:
    q, x = quantize(weight(40, 96), "int4_zero"), weight(6, 96)
    assert q.zeros is not None
    wide = [deepseek.stack([t, t], -1)[..., 0] for t in (q.codes, q.scales, q.zeros)]
    other = QuantizedTensor(wide[0], wide[1], wide[2], q.format, q.block, q.shape)
    assert not wide[0].is_contiguous()
    assert deepseek.equal(qlinear(x, q), qlinear(x, other)) and deepseek.equal(q.dequantize(), other.dequantize())
    assert deepseek.equal(qlinear(x.t().contiguous().t(), q), qlinear(x, q))


def test_parts_are_checked() -> None:
    q = quantize(weight(4, 64), "int8", 32)
    with pytest.raises(RuntimeError, match="codes have 4 rows"):
        QuantizedTensor(q.codes, q.scales, None, "int8", 32, (5, 64))
    with pytest.raises(RuntimeError, match="scales must be float32 of shape"):
        QuantizedTensor(q.codes, q.scales, None, "int8", 64, (4, 64))
    *others, last = map(repr, FORMATS)
    with pytest.raises(ValueError, match=f"format must be {', '.join(others)} or {last}, got 'int3'"):
        quantize(weight(4, 64), "int3")
    with pytest.raises(ValueError, match="takes blocks of 0 \\(a whole row\\), 32, 64 or 128, got 16"):
        quantize(weight(4, 64), "int8", 16)
    with pytest.raises(ValueError, match="'fp8' takes blocks of 128, got 0"):
        quantize(weight(4, 64), "fp8", 0)


def test_formats_are_those_of_checkpoints() -> None:
    """Names, layouts and default blocks are in files that users keep."""
    known = {
        "int8": (0, "int8", 1),
        "int4": (32, "uint8", 2),
        "int4_zero": (32, "uint8", 2),
        "fp8": (128, "float8_e4m3fn", 1),
    }
    for name, (block, code, per_byte) in known.items():
        row = format_named(name)
        assert FORMATS[name] == block and str(row.code) == f"deepseek.{code}" and row.per_byte == per_byte
    assert list(FORMATS)[:4] == list(known)
    assert format_named("fp8").rows == 128 and format_named("int4_zero").has_zeros


def test_the_documentation_has_the_table_of_formats() -> None:
    text = deepseek.quantization.__doc__ or ""
    for name in FORMATS:
        assert name in text and format_named(name).doc in text
    assert "5.25, 4.62, 4.31" in text and "8, 9, 8.5, 8.25" in text


def test_defaults_and_text() -> None:
    for name, block in FORMATS.items():
        q = quantize(weight(8, 128), name)
        assert (q.format, q.block, q.shape) == (name, block, (8, 128))
    q = quantize(weight(8, 128), "int4")
    assert repr(q) == "QuantizedTensor(8 x 128, int4, blocks of 32, 640 bytes)" and q.nbytes == 640
    assert "a scale for each row" in repr(quantize(weight(8, 128), "int8"))
    assert dequantize(q).dtype == deepseek.float32 and dequantize(q, deepseek.bfloat16).dtype == deepseek.bfloat16


def test_numpy_sees_the_documented_nibbles() -> None:
    w = deepseek.tensor([[-8.0, 7, 1, 0, -3]])
    assert quantize(w, "int4").codes.numpy().tolist() == [[0xF0, 0x89, 0x05]]
    values = np.arange(-127, 128, dtype=np.float32)[None]
    assert (quantize(deepseek.from_numpy(values), "int8").codes.numpy() == values).all()


def test_int_mm_is_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (37, 600)).astype(np.int8), rng.integers(-128, 128, (600, 45)).astype(np.int8)
    want = a.astype(np.int64) @ b.astype(np.int64)
    got = int_mm(deepseek.from_numpy(a), deepseek.from_numpy(b))
    assert got.dtype == deepseek.int32 and (got.numpy() == want).all()
    unsigned = deepseek.from_numpy(a.view(np.uint8))
    columns = deepseek.from_numpy(np.ascontiguousarray(b.T)).t()
    assert (int_mm(unsigned, columns).numpy() == a.view(np.uint8).astype(np.int64) @ b.astype(np.int64)).all()
    with pytest.raises(RuntimeError, match="Expected mat2 dtype to be of type int8 but got uint8"):
        int_mm(deepseek.from_numpy(a), deepseek.from_numpy(b.view(np.uint8)))


def test_the_packed_copy_knows_where_rows_end() -> None:
    """Codes of two values a byte have one shape for 63 and 64 values; used both ways they are packed twice."""
    q = quantize(deepseek.randn(4, 64), "int4")
    shorter = QuantizedTensor(q.codes, q.scales, q.zeros, q.format, q.block, (4, 63))
    x = deepseek.randn(3, 64)
    for weight in (q, shorter, q):
        own = x[:, : weight.shape[1]]
        fresh = QuantizedTensor(q.codes.clone(), q.scales, q.zeros, q.format, q.block, weight.shape)
        assert qlinear(own, weight).equal(qlinear(own, fresh))
