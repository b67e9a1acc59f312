"""Attention: causal forward and backward, and decoding one token with a long cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main

HEADS, BATCH = 8, 1
LENGTHS = (512, 1024, 4096)
QUERY_HEADS, KEY_HEADS, CACHE, SIZE = 32, 8, 32768, 128
# Speedups by length (forward, backward) and by peer (decoding).
FORWARD = {"f32": (1.8, 1.5, 1.2), "bf16": (2.5, 2.5, 2.0)}
BACKWARD = {"f32": (1.6, 1.5, 1.25), "bf16": (2.5, 2.0, 1.8)}
DECODE = {"f32": {"grouped": 8.0, "stacked": 2.0}, "bf16": {"grouped": 25.0, "stacked": 2.5},
          "int8": {"stacked": 4.0}}  # fmt: skip


def normal(T: Any, dtype: Any, *shapes: tuple[int, ...]) -> list[Any]:
    T.manual_seed(0)
    return [T.randn(*shape).to(dtype) for shape in shapes]


def forward(T: Any, length: int, size: int, dtype: Any) -> Callable[[], Any]:
    def setup() -> Any:
        attention = T.nn.functional.scaled_dot_product_attention
        q, k, v = normal(T, dtype, *[(BATCH, HEADS, length, size)] * 3)
        return lambda: attention(q, k, v, is_causal=True), 2e-9 * HEADS * length**2 * size, "GFLOP_per_s"

    return setup


def backward(T: Any, length: int, size: int, dtype: Any) -> Callable[[], Any]:
    def setup() -> Any:
        q, k, v, g = normal(T, dtype, *[(BATCH, HEADS, length, size)] * 4)
        inputs = [x.requires_grad_(True) for x in (q, k, v)]
        y = T.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
        flops = 5e-9 * HEADS * length**2 * size
        return lambda: T.autograd.grad(y, inputs, g, retain_graph=True), flops, "GFLOP_per_s"

    return setup


def decode(T: Any, dtype: Any, stacked: bool) -> Callable[[], Any]:
    """stacked: PyTorch gets the query heads of a key head as queries of that head, which it computes much faster."""

    def setup() -> Any:
        attention = T.nn.functional.scaled_dot_product_attention
        cache = (BATCH, KEY_HEADS, CACHE, SIZE)
        q, k, v = normal(T, dtype, (BATCH, QUERY_HEADS, 1, SIZE), cache, cache)
        gigabytes = 2e-9 * k.numel() * k.element_size()
        if stacked and T.__name__ == "torch":
            q = q.reshape(BATCH, KEY_HEADS, QUERY_HEADS // KEY_HEADS, SIZE)
            return lambda: attention(q, k, v), gigabytes, "GB_per_s"
        return lambda: attention(q, k, v, enable_gqa=True), gigabytes, "GB_per_s"

    return setup


def decode_int8(T: Any) -> Callable[[], Any]:
    """One token, bfloat16, against a cache of int8. PyTorch has none: its cache is bfloat16."""
    if T.__name__ == "torch":
        return decode(T, T.bfloat16, True)

    def setup() -> Any:
        F, cache = T.nn.functional, (BATCH, KEY_HEADS, CACHE, SIZE)
        q, k, v = normal(T, T.float32, (BATCH, QUERY_HEADS, 1, SIZE), cache, cache)
        q, (k, key_scale), (v, value_scale) = q.bfloat16(), F.quantize_rows(k), F.quantize_rows(v)
        scales = {"key_scale": key_scale, "value_scale": value_scale}
        return lambda: F.attention(q, k, v, **scales, enable_gqa=True), 2e-9 * k.numel(), "GB_per_s"

    return setup


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    table: dict[str, Callable[[], Any]] = {}
    dtypes = {"f32": T.float32, "bf16": T.bfloat16}
    for name, make in (("forward", forward), ("backward", backward)):
        for label, dtype in dtypes.items():
            for size in (64, 128):
                for length in LENGTHS:
                    table[f"{name} {length} {HEADS}x{size} {label}"] = make(T, length, size, dtype)
    for label, dtype in dtypes.items():
        for peer in ("grouped", "stacked"):
            table[f"decode {CACHE} {QUERY_HEADS}/{KEY_HEADS}x{SIZE} {peer} {label}"] = decode(
                T, dtype, peer == "stacked"
            )
    table[f"decode {CACHE} {QUERY_HEADS}/{KEY_HEADS}x{SIZE} stacked int8"] = decode_int8(T)
    return table


def goal(case: str) -> float:
    what, length, *rest, label = case.split()
    if what == "decode":
        return DECODE[label][rest[-1]]
    return (FORWARD if what == "forward" else BACKWARD)[label][LENGTHS.index(int(length))]


def why(case: str) -> str:
    if case.startswith("decode"):
        return "one pass over the cache, at the memory's pace"
    return "at 80 % of the peak of BF16 instructions" if case.endswith("bf16") else ""


if __name__ == "__main__":
    main("attention", cases, readme=(
        "forward 1024 8x64 f32", "forward 1024 8x64 bf16", "backward 1024 8x64 f32", "backward 1024 8x64 bf16",
        "decode 32768 32/8x128 stacked f32", "decode 32768 32/8x128 stacked bf16",
    ), goals=goal, why=why)  # fmt: skip
