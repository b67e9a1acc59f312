"""Calls of the fast kernels, at odd sizes, and the routes they must take. `test_kernels_isa.py` runs this file as a
program for each instruction set: it prints, as JSON, how far each call is from float64 and which routes ran.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import deepseek
import numpy as np
from deepseek import _C
from deepseek.quantization._formats import FORMATS, format_named
from opinfo import OpInfo, Sample
from opinfo.core import A, I, S, T, fill, leaves, outputs, tree_map
from opinfo.running import weight_like

Tensor = deepseek.Tensor
# Largest error allowed, as a share of the largest number of its tensor; a case may allow a multiple. The 16-bit floats
# compute in float32 and round twice: the result, and what a gradient is made of. Where that is one number, inputs are
# such that nothing cancels, or its share would say nothing.
TOLERANCE = {"float64": 1e-14, "float32": 1e-6, "bfloat16": 2**-7, "float16": 2**-10}


# --- what is not an op of the table ---------------------------------------------------------------------------------
def stepped(make: Callable[[list[Any]], Any], p: Any, *grads: Any) -> Any:
    p = p.detach().clone().requires_grad_(True)
    optimizer = make([p])
    for grad in grads:
        p.grad = grad.detach().clone()
        optimizer.step()
    return p.detach()


def adamw(p: Any, *grads: Any) -> Any:
    return stepped(lambda params: deepseek.optim.AdamW(params, lr=0.1, weight_decay=0.1), p, *grads)


def sgd(p: Any, *grads: Any) -> Any:
    return stepped(lambda params: deepseek.optim.SGD(params, lr=0.1, momentum=0.9), p, *grads)


def unscaled(grad: Any) -> Any:
    grad = grad.detach().clone()
    assert [int(n) for n in _C._unscale([grad], 0.25)] == [0, 0]
    return grad


def integer_matmul(a: Any, b: Any) -> Any:
    return a.to(deepseek.int32) @ b.to(deepseek.int32)


def int8_matmul(a: Any, b: Any) -> Any:
    return _C._int_mm(a.to(deepseek.int8), b.to(deepseek.int8))


def uint8_matmul(a: Any, b: Any) -> Any:
    return _C._int_mm((a.trunc() + 9).to(deepseek.uint8), b.to(deepseek.int8).t().contiguous().t())


def whole_matmul_of_uint8(a: Any, b: Any) -> Any:
    return (a.trunc() + 9) @ b.trunc()


def whole_matmul(a: Any, b: Any) -> Any:
    return a.trunc() @ b.trunc()


def quantized(w: Any, kind: str, block: int) -> list[Any]:
    """Codes, scales and zero points; None where the format has none."""
    codes, scales, zeros = _C._quantize(w, kind, block)
    return [codes, scales, zeros if format_named(kind).has_zeros else None]


def small_product(x: Any, bias: Any, kind: str, block: int) -> tuple[Any, list[Any], Any]:
    """An input and bias of whole numbers, with the gradients of x and bias, and the parts of a weight with scales of 1:
    sums are exact. Where products round the input to int8, its largest number is 127, so that it stays as it is."""
    weight = np.random.default_rng(1).normal(size=(bias.shape[0], x.shape[1])).astype(np.float32)
    parts = quantized(deepseek.from_numpy(weight), kind, block)
    parts[1].fill_(1)
    inputs = np.arange(x.numel()).reshape(x.shape) % 5 - 2
    if format_named(kind).whole_numbers:
        inputs[:, 5] = 127
    x = deepseek.from_numpy(inputs).to(x.dtype) + (x - x.detach())
    bias = deepseek.arange(bias.shape[0]).to(bias.dtype) + (bias - bias.detach())
    return x, parts, bias


def qlinear(x: Any, bias: Any, kind: str, block: int) -> Any:
    x, parts, bias = small_product(x, bias, kind, block)
    return _C._qlinear(x, *parts, bias, kind, block)


def dequantized_linear(x: Any, bias: Any, kind: str, block: int) -> Any:
    x, parts, bias = small_product(x, bias, kind, block)
    weight = _C._dequantize(*parts, kind, block, x.shape[1], dtype=x.dtype)
    return deepseek.nn.functional.linear(x, weight, bias)


def _quantized_linear_fused(x: Any, bias: Any, kind: str, block: int, activation: str) -> Any:
    """float64 and float16 go through the ops one by one."""
    x, parts, bias = small_product(x, bias, kind, block)
    return _C._qlinear(x, *parts, bias, kind, block, activation)


def activated_dequantized_linear(x: Any, bias: Any, kind: str, block: int, activation: str) -> Any:
    return activate(dequantized_linear(x, bias, kind, block), activation)


def activate(x: Any, activation: str) -> Any:
    if activation == "gelu_tanh":
        return deepseek.nn.functional.gelu(x, approximate="tanh")
    return getattr(deepseek.nn.functional, activation)(x)


def qmoe(x: Any, gate: Any, up: Any, down: Any, ids: Any, weights: Any, kind: str, block: int) -> Any:
    stacks = [part for w in (gate, up, down) for part in quantized(w.float(), kind, block)]
    return _C._qmoe(x, *stacks, ids, weights, kind, block, kind, block)


def qmoe_by_loop(x: Any, gate: Any, up: Any, down: Any, ids: Any, weights: Any, kind: str, block: int) -> Any:
    """One token and one of its experts at a time, in float32."""
    stacks = [quantized(w.float(), kind, block) for w in (gate, up, down)]
    rows = []
    for t, k in np.ndindex(*ids.shape):
        at = int(ids[t, k])
        one = [[part if part is None else part[at] for part in stack] for stack in stacks]
        a, b = (_C._qlinear(x[t : t + 1].float(), *parts, None, kind, block) for parts in one[:2])
        hidden = deepseek.nn.functional.swiglu(a, b)
        rows.append(_C._qlinear(hidden, *one[2], None, kind, block)[0] * weights[t, k].float())
    by_slot = deepseek.stack(rows).reshape(*ids.shape, -1).unbind(1)
    return sum(by_slot[1:], by_slot[0]).to(x.dtype)


def spread_codes(x: Any) -> Any:
    """Whole numbers in [-127, 127] of a tensor's shape."""
    return (deepseek.arange(x.numel()).reshape(x.shape) * 89) % 255 - 127


def index_scores_int8(q: Any, k: Any) -> Any:
    """Scales and weights are 1, so that sums are exact."""
    codes = [spread_codes(x).to(deepseek.int8) for x in (q, k)]
    ones = [deepseek.ones(x.shape[:-1]) for x in (q, k)]
    return _C._index_scores_int8(codes[0], ones[0], codes[1], ones[1], ones[0], False, 0)


def whole_index_scores(q: Any, k: Any) -> Any:
    q, k = (spread_codes(x).double() for x in (q, k))
    return _C._index_scores(q, k, deepseek.ones(q.shape[:-1]).double(), False, 0)


def select_blocks(q: Any, k: Any, mass: float) -> Any:
    """Where each block lies for a head is far apart from others, so that rounding changes no order."""
    means = spread_codes(k[:, :, :25]).to(q.dtype) / 64
    return _C._select_blocks(means[:, :, :1].repeat(1, 3, 70, 1), k, means, 16, 5, 0.0, mass, True, 0.1, 330)


def _sinkhorn(logits: Any) -> Any:
    """It is float32 or float64; the same code on every instruction set, so there is no route."""
    return _C._sinkhorn(logits if logits.dtype is deepseek.float64 else logits.float(), 5, 1e-6)


def one_hot_codes(q: Any, k: Any, v: Any) -> tuple[Any, Any, Any]:
    """Random codes of keys, each query one of its keys: one weight is 1 and the others vanish, so results are exact."""
    keys = np.random.default_rng(2).integers(-127, 128, k.shape)
    heads = keys.repeat(q.shape[1] // k.shape[1], axis=1)
    chosen = (np.arange(q.shape[1] * q.shape[2]) * 7 % k.shape[2]).reshape(q.shape[1:3])
    queries = np.take_along_axis(heads, chosen[None, :, :, None], axis=2)
    return deepseek.from_numpy(queries), deepseek.from_numpy(keys), spread_codes(v)


def attention_int8(*qkv: Any) -> Any:
    q, k, v = one_hot_codes(*qkv)
    scale = deepseek.ones(k.shape[:-1])
    k, v = k.to(deepseek.int8), v.to(deepseek.int8)
    return _C._attention_int8(q.to(qkv[0].dtype), k, scale, v, scale, None, None, False, 1.0, 0, 0.0, 0)[0]


def one_hot_attention(*qkv: Any) -> Any:
    q, k, v = (x.double() for x in one_hot_codes(*qkv))
    return _C._attention(q, k, v, None, None, None, False, 1.0, 0, 0.0, 0.0, 0)[0]


def transposed(x: Any) -> Any:
    return x.t().contiguous()


def streamed(x: Any, y: Any) -> Any:
    """Results written past the caches, as if they were large."""
    _C._set_stream_limit(1)
    try:
        return (x * y)[::2].contiguous()
    finally:
        _C._set_stream_limit(0)


def rope_of_columns(x: Any, cos: Any, sin: Any) -> Any:
    return deepseek.nn.functional.rope(x.t(), cos, sin)


def composite_rope_of_columns(x: Any, cos: Any, sin: Any) -> Any:
    return _C.op_composite("rope", x.t(), cos, sin)


def tied_embedding(ids: Any, weight: Any) -> Any:
    return deepseek.nn.functional.linear(deepseek.nn.functional.embedding(ids, weight), weight)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        adamw, sgd, unscaled, integer_matmul, int8_matmul, uint8_matmul, qlinear, _quantized_linear_fused, qmoe,
        index_scores_int8, select_blocks, _sinkhorn, attention_int8, transposed, streamed, rope_of_columns,
        tied_embedding,
    )
}  # fmt: skip
REFERENCES: dict[str, Callable[..., Any]] = {
    "integer_matmul": whole_matmul,
    "int8_matmul": whole_matmul,
    "uint8_matmul": whole_matmul_of_uint8,
    "qlinear": dequantized_linear,
    "_quantized_linear_fused": activated_dequantized_linear,
    "qmoe": qmoe_by_loop,
    "rope_of_columns": composite_rope_of_columns,
    "index_scores_int8": whole_index_scores,
    "attention_int8": one_hot_attention,
}


def experts(count: int, hidden: int, dim: int, hi: float = 2.0, grad: bool = True) -> list[Any]:
    return [T(count, *shape, lo=-hi, hi=hi, grad=grad) for shape in ((hidden, dim), (hidden, dim), (dim, hidden))]


def quantized_experts(tokens: int, dim: int, hidden: int, kind: str, block: int) -> Sample:
    weights = experts(3, hidden, dim, hi=0.3, grad=False)
    return S(T(tokens, dim, grad=False), *weights, I(tokens, 2, hi=3), T(tokens, 2, grad=False), kind, block)


# --- the cases ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    name: str
    sample: Sample
    routes: tuple[str, ...]  # must run; those of `alternatives` in test_kernels_isa.py depend on dtype and CPU
    tol: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}{self.sample}"


def C(name: str, sample: Sample, routes: str, tol: float = 1.0) -> Case:
    return Case(name, sample, tuple(routes.split()), tol)


QUANTIZED = [(name, block) for name in FORMATS for block in format_named(name).blocks]
QGEMM = "qgemm qgemm.pack quantize dequantize"
QMOE = "moe.int8 qgemm qgemm.pack"
NORM = "norm.forward norm.backward"
SOFTMAX = "softmax.forward softmax.backward"
ATTENTION = "attention attention_backward"
# A mask: all of the first row, and every third number of others.
LOW_NUMBERS = A(np.where(np.arange(33)[:, None] * np.arange(41) % 3 == 0, -3.3e38, 0.0), grad=False)
TOKEN_SPARSE = "token_sparse token_sparse_backward"
BLOCK_SPARSE = "block_sparse block_sparse_backward"
RULE = (True, 0.125, 0, 0.0, 0.0, 603)  # is_causal, scale, window, softcap, dropout_p, query_start
LOSS = "cross_entropy.forward cross_entropy.backward"
MOE = "grouped moe.by_rows"
CASES = [
    # products: few rows, many rows, k beyond one block, a second matrix that is read transposed
    C("linear", S(T(5, 67), T(43, 67), T(43)), "matmul dot_rows few_rows"),
    C("linear", S(T(53, 67), T(43, 67), T(43)), "matmul many_rows"),
    C("linear", S(T(33, 1031), T(71, 1031)), "matmul dot_rows"),
    C("_linear_fused", S(T(53, 67), T(43, 67), T(43), activation="gelu"), "matmul many_rows"),
    C("matmul", S(T(5, 1031), T(1031, 71)), "matmul few_rows"),
    C("matmul", S(T(1, 64), T(64, 128)), "matmul few_rows"),
    C("matmul", S(T(37, 4, 4), T(37, 4, 4)), "matmul 4x4"),
    C("matmul", S(T(3, 37, 19), T(3, 19, 23)), "matmul many_rows"),
    C("mv", S(T(37, 67), T(67)), "matmul"),
    C("integer_matmul", S(T(7, 13, lo=-9, hi=9, grad=False), T(13, 300, lo=-9, hi=9, grad=False)), "matmul.integer"),
    C("int8_matmul", S(T(25, 131, lo=-9, hi=9, grad=False), T(131, 67, lo=-9, hi=9, grad=False)), "matmul.int8"),
    C("uint8_matmul", S(T(25, 131, lo=-9, hi=9, grad=False), T(131, 67, lo=-9, hi=9, grad=False)), "matmul.int8"),
    # products with quantized weights
    *[
        C("qlinear", S(T(rows, 67), T(19), *case), QGEMM if format_named(case[0]).whole_numbers else "qgemm.fp8")
        for case in QUANTIZED
        for rows in (1, 23)
    ],
    *[
        C("_quantized_linear_fused", S(T(23, 67, grad=False), T(19, grad=False), "int8", 32, name), "qgemm qgemm.pack")
        for name in _C._activations()
    ],
    *[
        C("_quantized_linear_fused", S(T(5, 67, grad=False), T(19, grad=False), *case, "relu"), "")
        for case in QUANTIZED
    ],
    *[
        C(
            "qmoe",
            quantized_experts(rows, 67, 33, name, block),
            QMOE if format_named(name).whole_numbers else "moe.fp8",
            4,
        )
        for name, block in FORMATS.items()
        for rows in (9, 31)
    ],
    # rows
    C("softmax", S(T(37, 129), 1), f"{SOFTMAX} lines"),
    C("softmax", S(T(129, 37), 0), f"{SOFTMAX} columns"),
    C("log_softmax", S(T(5, 1031, 67), 1), f"{SOFTMAX} columns", 4),
    C("softmax", S(T(7, 33, 5), 1), f"{SOFTMAX} lines.gathered"),
    C("softmax", S(T(3, 5001), -1), SOFTMAX),
    C("log_softmax", S(T(37, 129), 1), SOFTMAX, 2),
    C("layer_norm", S(T(37, 129), [129], T(129), T(129)), NORM),
    C("_layer_norm", S(T(67, 33), T(33), T(33), 1e-5), NORM),
    C("rms_norm", S(T(37, 129), [129], T(129), 1e-6), NORM),
    C("_rms_norm", S(T(67, 33), T(33), 1e-6), NORM),
    C("_add_rms_norm", S(T(33), T(67, 33), T(67, 33), 1e-6), NORM),
    # losses
    C("_cross_entropy", S(T(37, 129), I(37, hi=129), T(129, lo=0.3, grad=False), -100, 0.1), LOSS),
    C("cross_entropy", S(T(37, 129), I(37, hi=129)), LOSS),
    C("_linear_cross_entropy", S(T(9, 33), T(129, 33), T(129), I(9, hi=129), -100, 0.1, True, 7), f"matmul {LOSS}", 4),
    # reductions
    C("sum", S(T(7, 13, lo=0.5)), "one_chunk"),
    C("sum", S(T(37, 1031), 1), "reduce.rows"),
    C("sum", S(T(1031, 37), 0), "reduce.columns"),
    C("logsumexp", S(T(37, 129), [1]), "reduce.rows", 3),
    C("var", S(T(37, 129), [1]), "reduce.rows"),
    C("amax", S(T(129, 37), [0]), "reduce.columns"),
    C("argmax", S(T(37, 1031), 1), "arg_reduce"),
    # tables
    C("embedding", S(I(4, 33, hi=19), T(19, 37)), "embedding.forward embedding.backward"),
    C("tied_embedding", S(I(4, 33, hi=19), T(19, 37)), "embedding.forward embedding.backward_add"),
    # pointwise and copies
    C("swiglu", S(T(37, 67), T(37, 67)), "pointwise"),
    C("mul", S(T(37, 67), T(67)), "pointwise.blocks"),
    C("mul", S(T(37, 67, lo=0.5), T(1)), "spread"),
    C("gelu", S(T(37, 67)), "pointwise"),
    C("transposed", S(T(37, 67)), "copy.tiled"),
    C("flip", S(T(37, 67), [1]), "copy.reversed"),
    C("streamed", S(T(7, 1031), T(7, 1031)), "pointwise.stream copy.stream"),
    C("cat", S([T(37, 67), T(5, 67)]), "copy.block"),
    # what is made of several
    C("scaled_dot_product_attention", S(T(2, 3, 33, 19), T(2, 3, 41, 19), T(2, 3, 41, 17)), ATTENTION, 2),
    C("scaled_dot_product_attention", S(T(2, 33, 19), T(2, 41, 19), T(2, 41, 17), LOW_NUMBERS), ATTENTION, 2),
    C("_attention", S(T(1, 4, 97, 64), T(1, 2, 700, 64), T(1, 2, 700, 64), None, T(4), None, *RULE), ATTENTION, 2),
    C(
        "_varlen_attention",
        S(T(97, 4, 64), T(700, 2, 64), T(700, 2, 33), A([0, 70, 97]), A([0, 101, 700]), T(4), True, 0.125, 0, 0.0),
        ATTENTION,
        2,
    ),
    C(
        "block_sparse_attention",
        S(T(1, 6, 97, 64), T(1, 2, 700, 64), T(1, 2, 700, 33), I(1, 2, 97, 4, hi=11)),
        BLOCK_SPARSE,
        2,
    ),
    C(
        "_block_sparse_attention",
        S(T(2, 2, 33, 19), T(2, 1, 33, 19), T(2, 1, 33, 17), I(2, 1, 7, 2, lo=-1, hi=3), 16, 5, True, 0.25, 0, 0),
        BLOCK_SPARSE,
        2,
    ),
    C(
        "_token_sparse_attention",
        S(T(2, 6, 9, 64), T(2, 1, 700, 64), T(2, 1, 700, 33), I(2, 9, 90, hi=700), True, 0.125, 0, 500),
        TOKEN_SPARSE,
        2,
    ),
    C(
        "_index_scores",
        S(T(2, 19, 5, 37, lo=0.1), T(2, 150, 37, lo=0.1), T(2, 19, 5, lo=0.1), False, 0),
        "index_scores",
    ),
    C("select_blocks", S(T(2, 6, 70, 37, grad=False), T(2, 2, 400, 37, grad=False), 0.0), "select_blocks"),
    C("select_blocks", S(T(2, 6, 70, 37, grad=False), T(2, 2, 400, 37, grad=False), 0.9), "select_blocks"),
    C("_sinkhorn", S(T(37, 4, 4)), "", 4),
    C("index_scores_int8", S(T(2, 5, 7, 37, grad=False), T(2, 99, 37, grad=False)), "index_scores_int8"),
    *[
        C("attention_int8", S(*(T(2, *s, grad=False) for s in shapes)), "attention_int8")
        for shapes in (((8, 1, 37), (2, 611, 37), (2, 611, 21)), ((6, 70, 64), (1, 150, 64), (1, 150, 64)))
    ],
    C("moe", S(T(33, 19), *experts(3, 13, 19), I(33, 2, hi=3), T(33, 2)), f"{MOE} moe.many_rows", 2),
    C("moe", S(T(5, 1031), *experts(3, 67, 1031, hi=0.05), I(5, 2, hi=3), T(5, 2)), f"{MOE} moe.few_rows", 4),
    C("moe", S(T(130, 600), *experts(1, 70, 600, hi=0.1), I(130, 1, hi=1), T(130, 1)), f"{MOE} moe.many_rows", 2),
    C("moe", S(T(33, 19), *experts(3, 13, 19), I(33, 2, lo=-1, hi=3), T(33, 2), 0.5), f"{MOE} moe.many_rows", 2),
    C("_moe", S(T(3, 9), *experts(2, 5, 9), I(3, 1, hi=2), T(3, 1), True, None, False), "grouped moe.few_rows", 2),
    C("rope", S(T(5, 33, 18), T(33, 9), T(33, 9)), "rope.dense"),
    C("rope", S(T(5, 33, 70), T(33, 35), T(33, 35), True), "rope.dense"),
    C("rope_of_columns", S(T(38, 33), T(33, 19), T(33, 19)), "rope.buffered"),
    C("adamw", S(*[T(37, 67, grad=False)] * 3), "optim.adam"),
    C("sgd", S(*[T(37, 67, grad=False)] * 3), "optim.sgd"),
    C("unscaled", S(T(37, 67, grad=False)), "optim.unscale"),
]


# --- running them -----------------------------------------------------------------------------------------------------
def compute(
    how: Callable[..., Any], args: tuple, kwargs: dict, weights: list[Any] | None
) -> tuple[list[Any], list[Any]]:
    """Outputs and gradients of the first of them, and its grad output: the given one, or one made here."""
    result = outputs(how(*args, **kwargs))
    inputs = [t for t in leaves((args, kwargs), Tensor) if t.requires_grad]
    outs = [t for t in result if t.requires_grad][:1]  # statistics beside it would call for another derivative
    if not inputs or not outs:
        return result, []
    weights = [weight_like(t) for t in outs] if weights is None else weights
    return [*result, *deepseek.autograd.grad(outs, inputs, weights, allow_unused=True)], weights


def error(got: Any, wanted: Any) -> float:
    """The largest difference, as a share of the largest number; infinite where shapes or NaNs differ."""
    a, b = got.detach().double().numpy(), wanted.detach().double().numpy()
    if a.shape != b.shape or not (np.isfinite(a) == np.isfinite(b)).all():
        return float("inf")
    scale = max(float(np.abs(b).max(initial=0)), 1e-30)
    return float(np.abs(a - b).max(initial=0)) / scale


def wide(t: Any) -> Any:
    return t.detach().double().requires_grad_(t.requires_grad) if t.dtype.is_floating_point else t


def run(case: Case, dtype: str) -> dict[str, Any]:
    call = fill(OpInfo(case.name, None, (case.sample,)), 0, dtype)
    args, kwargs = call.tensors(requires_grad=True)
    table = _C.op_table()
    fused = case.name in table and table[case.name].has_composite
    by_name = _C.op_composite if fused else _C.op_call
    kernel = FUNCTIONS.get(case.name) or (lambda *a, **k: _C.op_call(case.name, *a, **k))
    exact = REFERENCES.get(case.name) or FUNCTIONS.get(case.name) or (lambda *a, **k: by_name(case.name, *a, **k))
    _C.reset_kernel_counts()
    got, weights = compute(kernel, args, kwargs, None)
    routes = {key: n for key, n in _C.kernel_counts().items() if n}
    wanted, _ = compute(exact, *tree_map(wide, (args, kwargs), Tensor), [w.double() for w in weights])
    errors = [error(a, b) for a, b in zip(got, wanted, strict=True) if a is not None]
    return {"error": max(errors), "gradients": len(weights) > 0, "routes": routes}


def main() -> None:
    found = {f"{case} [{dtype}]": run(case, dtype) for case in CASES for dtype in TOLERANCE}
    print(json.dumps({"isa": _C.build_info()["isa"], "cases": found}))


if __name__ == "__main__":
    main()
