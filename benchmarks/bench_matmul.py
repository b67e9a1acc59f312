"""Matrix products: large, skinny (decoding), batched (attention), small; float32, float64 and bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main

# (M, K, N): [M, K] @ [N, K].T as in linear layers
LINEAR = [(1024, 1024, 1024), (512, 512, 512), (2048, 128, 384), (128, 2048, 256), (8, 1024, 4096), (1, 1024, 4096)]
SQUARE = [64, 256, 1024]


def product(T: Any, a: tuple[int, ...], b: tuple[int, ...], dtype: Any, transposed: bool) -> Callable[[], Any]:
    def setup() -> Any:
        T.manual_seed(0)
        x, y = T.randn(*a).to(dtype), T.randn(*b).to(dtype)
        if transposed:
            y = y.transpose(-2, -1)
        flops = 2e-9 * x.numel() * y.shape[-1]
        return lambda: x @ y, flops, "GFLOP_per_s"

    return setup


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    table: dict[str, Callable[[], Any]] = {}
    for m, k, n in LINEAR:
        for label, dtype in (("f32", T.float32), ("bf16", T.bfloat16)):
            table[f"linear {m}x{k}x{n} {label}"] = product(T, (m, k), (n, k), dtype, True)
    for n in SQUARE:
        table[f"matmul {n} f32"] = product(T, (n, n), (n, n), T.float32, False)
        table[f"matmul {n} f64"] = product(T, (n, n), (n, n), T.float64, False)
    table["attention scores 16x256x64x256 f32"] = product(T, (16, 256, 64), (16, 256, 64), T.float32, True)
    table["experts 8x512x128x192 f32"] = product(T, (8, 512, 128), (8, 192, 128), T.float32, True)
    return table


if __name__ == "__main__":
    main("matmul", cases, readme=(
        "linear 1024x1024x1024 f32", "linear 1024x1024x1024 bf16", "linear 2048x128x384 f32", "linear 8x1024x4096 f32",
        "linear 1x1024x4096 f32", "matmul 1024 f64", "attention scores 16x256x64x256 f32",
    ))  # fmt: skip
