"""Matrix products: large, skinny (decoding), one short side, batched small ones, linear with bias and GELU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main


def product(T: Any, a: tuple[int, ...], b: tuple[int, ...], dtype: Any, transposed: bool = False) -> Callable[[], Any]:
    def setup() -> Any:
        T.manual_seed(0)
        x, y = T.randn(*a).to(dtype), T.randn(*b).to(dtype)
        if transposed:
            y = y.transpose(-2, -1)
        flops = 2e-9 * x.numel() * y.shape[-1]
        return lambda: x @ y, flops, "GFLOP_per_s"

    return setup


def linear(T: Any, m: int, k: int, n: int, dtype: Any, gelu: str = "") -> Callable[[], Any]:
    """[m, k] times a weight [n, k], as in inference; with gelu="eager" or "compiled" a bias and the activation too."""

    def setup() -> Any:
        T.manual_seed(0)
        x, weight, bias = (T.randn(*shape).to(dtype) for shape in ((m, k), (n, k), (n,)))
        F = T.nn.functional

        def plain() -> Any:
            with T.no_grad():
                return F.linear(x, weight)

        def layer(x: Any) -> Any:
            return F.gelu(F.linear(x, weight, bias))

        chosen = T.compile(layer) if gelu == "compiled" else layer

        def activated() -> Any:
            with T.no_grad():
                return chosen(x)

        return activated if gelu else plain, 2e-9 * m * k * n, "GFLOP_per_s"

    return setup


Case = tuple[Callable[[Any], Callable[[], Any]], float | None]  # from the library to the set-up; the goal
FLOAT_NAMES = {"f32": "float32", "bf16": "bfloat16"}


def linear_case(m: int, k: int, n: int, label: str, gelu: str = "") -> Callable[[Any], Callable[[], Any]]:
    return lambda T: linear(T, m, k, n, getattr(T, FLOAT_NAMES[label]), gelu)


def onednn_case(m: int, k: int, n: int) -> Callable[[Any], Callable[[], Any]]:
    """A float32 linear layer beside oneDNN's, which PyTorch has behind a hidden op (its linear is MKL's in float32)."""

    def setup_for(T: Any) -> Callable[[], Any]:
        if T.__name__ != "torch":
            return linear(T, m, k, n, T.float32)

        def setup() -> Any:
            x, weight = T.randn(m, k), T.randn(n, k)
            product = T.ops.mkldnn._linear_pointwise
            return lambda: product(x, weight, None, "none", [], ""), 2e-9 * m * k * n, "GFLOP_per_s"

        return setup

    return setup_for


def product_case(
    a: tuple[int, ...], b: tuple[int, ...], dtype: str = "float32", transposed: bool = False
) -> Callable[[Any], Callable[[], Any]]:
    return lambda T: product(T, a, b, getattr(T, dtype), transposed)


def table() -> dict[str, Case]:
    rows: dict[str, Case] = {}
    # Every side at least 512.
    for m, k, n in [(512, 512, 512), (1024, 1024, 1024), (512, 4096, 4096)]:
        for label, goal in (("f32", 1.45), ("bf16", 1.0)):
            rows[f"linear {m}x{k}x{n} {label}"] = linear_case(m, k, n, label), goal
        rows[f"linear {m}x{k}x{n} f32, oneDNN"] = onednn_case(m, k, n), 0.97
    # Few rows: decoding.
    for m, f32, bf16 in [(1, 1.4, 1.5), (8, 3.0, 1.6), (64, 2.2, None)]:
        rows[f"linear {m}x4096x4096 f32"] = linear_case(m, 4096, 4096, "f32"), f32
        rows[f"linear {m}x4096x4096 bf16"] = linear_case(m, 4096, 4096, "bf16"), bf16
    # One side of at most 64.
    for m, k, n in [(64, 64, 64), (16, 1024, 1024), (1024, 16, 1024), (1024, 1024, 16), (32, 32, 4096), (2048, 64, 64)]:
        rows[f"matmul {m}x{k}x{n} f32"] = product_case((m, k), (k, n)), 2.0
    for n, goal in [(4, 3.0), (16, 2.0), (64, 1.6)]:
        rows[f"matmul 1024 times {n}x{n} f32"] = product_case((1024, n, n), (1024, n, n)), goal
    for m in (32, 256):
        for label, goal in (("f32", 1.5), ("bf16", 1.1)):
            for how in ("eager", "compiled"):
                name = f"linear+bias+gelu {m}x1024x4096 {label}" + (", compiled" if how == "compiled" else "")
                rows[name] = linear_case(m, 1024, 4096, label, how), goal
    # What the demo's model and attention multiply.
    rows["linear 2048x128x384 f32"] = linear_case(2048, 128, 384, "f32"), None
    rows["linear 128x2048x256 f32"] = linear_case(128, 2048, 256, "f32"), None
    rows["attention scores 16x256x64x256 f32"] = product_case((16, 256, 64), (16, 256, 64), transposed=True), None
    rows["experts 8x512x128x192 f32"] = product_case((8, 512, 128), (8, 192, 128), transposed=True), None
    for n in (256, 1024):
        rows[f"matmul {n} f64"] = product_case((n, n), (n, n), "float64"), None
    return rows


TABLE = table()


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    return {name: make(T) for name, (make, _) in TABLE.items()}


def goal(case: str) -> float | None:
    return TABLE[case][1]


if __name__ == "__main__":
    main("matmul", cases, goals=goal, readme=(
        "linear 1024x1024x1024 f32", "linear 1024x1024x1024 bf16", "linear 8x4096x4096 f32",
        "linear 1x4096x4096 f32", "linear+bias+gelu 256x1024x4096 f32", "matmul 1024 times 16x16 f32",
        "matmul 1024 f64", "attention scores 16x256x64x256 f32",
    ))  # fmt: skip
