"""Products with quantized weights beside llama.cpp, ONNX Runtime and PyTorch: prefill, several users, one user.

Each peer has the format nearest to ours. Activations are float32 for all but PyTorch, whose low-bit kernels take
bfloat16. Weights of the small products rotate through matrices that do not fit in the cache together, as in decoding.
The peak of VNNI is 128 operations a cycle and core: "GOP_per_s" is 467 a core at 3.66 GHz.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _lowbit_peers as peers
from _harness import main

K = N = 4096
# rows: (matrices in turn, goal against llama.cpp and ONNX Runtime for 4 bits, for 8 bits)
ROWS = {512: (1, 2.5, 3.0), 64: (1, None, None), 8: (12, 2.0, 2.0), 1: (12, 1.1, 1.1)}
INT8 = ((512, 512, 512), (1024, 1024, 1024), (512, 4096, 4096))  # M, K, N
# ours: what llama.cpp, ONNX Runtime (bits, block) and PyTorch have
FORMATS: dict[str, tuple[str, tuple[int, int] | None, str]] = {
    "int4 32": ("Q4_0", (4, 32), "int4"),
    "int4 128": ("", (4, 128), ""),
    "int4_zero 32": ("Q4_K", None, ""),
    "int8 32": ("Q8_0", (8, 32), ""),
    "int8 0": ("", None, "int8"),
    "fp8 128": ("", None, "fp8"),
}
Setup = Callable[[], Any]


def timed(run: Callable[[], Any], m: int, layers: int, nbytes: int = 0) -> tuple[Callable[[], Any], dict[str, float]]:
    rates = {"GOP_per_s": 2e-9 * m * K * N * layers}
    return run, rates | ({"weight_GB_per_s": 1e-9 * nbytes} if nbytes else {})


def ours(T: Any, name: str, block: int, m: int, layers: int) -> Setup:
    def setup() -> Any:
        from deepseek.quantization import qlinear, quantize

        T.manual_seed(0)
        x, held = T.randn(m, K), [quantize(T.randn(N, K) * 0.02, name, block) for _ in range(layers)]
        return timed(lambda: [qlinear(x, weight) for weight in held], m, layers, layers * held[0].nbytes)

    return setup


def torch_product(T: Any, kind: str, m: int, layers: int) -> Setup:
    def int8(w: Any) -> Callable[[Any], Any]:
        scales = w.abs().amax(1) / 127
        codes = (w / scales[:, None]).round().to(T.int8)
        return lambda x: T._weight_int8pack_mm(x, codes, scales.bfloat16())

    def int4(w: Any) -> Callable[[Any], Any]:
        codes = T.randint(0, 16, (N, K), dtype=T.int32)
        packed = T._convert_weight_to_int4pack_for_cpu(codes, 1)
        scales = T.rand(K // 32, N, 2, dtype=T.bfloat16) * 0.01
        return lambda x: T._weight_int4pack_mm_for_cpu(x, packed, 32, scales)

    def fp8(w: Any) -> Callable[[Any], Any]:
        codes = w.to(T.float8_e4m3fn)
        return lambda x: T.nn.functional.linear(x, codes.to(T.bfloat16))

    def setup() -> Any:
        T.manual_seed(0)
        x = T.randn(m, K).to(T.bfloat16)
        held = [{"int8": int8, "int4": int4, "fp8": fp8}[kind](T.randn(N, K) * 0.02) for _ in range(layers)]
        return timed(lambda: [product(x) for product in held], m, layers)

    return setup


def peer_product(T: Any, entry: tuple[str, tuple[int, int] | None, str], m: int, layers: int) -> Setup | None:
    """What a peer runs in this case; None when it has nothing like it."""
    ggml, onnx, torch = entry
    if T.__name__ == "llama_cpp" and ggml:
        return lambda: timed(peers.Ggml(T).product(ggml, m, K, N, layers), m, layers)
    if T.__name__ == "onnxruntime" and onnx:
        return lambda: timed(peers.onnx_product(T, *onnx, m, K, N, layers), m, layers)
    return torch_product(T, torch, m, layers) if T.__name__ == "torch" and torch else None


def int8_product(T: Any, m: int, k: int, n: int, order: str) -> Setup:
    """Bytes times bytes in 32 bits; PyTorch's is oneDNN's."""

    def setup() -> Any:
        T.manual_seed(0)
        a, b = (T.randint(-128, 128, shape).to(T.int8) for shape in ((m, k), (k, n)))
        if order == "columns":
            b = b.t().contiguous().t()
        if T.__name__ == "torch":
            product = T._int_mm
        else:
            from deepseek.quantization import int_mm as product
        return lambda: product(a, b), {"GOP_per_s": 2e-9 * m * k * n}

    return setup


def cases(T: Any) -> dict[str, Setup]:
    table: dict[str, Setup] = {}
    if T.__name__ in ("deepseek", "torch"):
        for m, k, n in INT8:
            for order in ("rows", "columns"):
                table[f"int_mm {order} {m}x{k}x{n}"] = int8_product(T, m, k, n, order)
    for m, (layers, _, _) in ROWS.items():
        for label, entry in FORMATS.items():
            name, block = label.split()
            mine = T.__name__ == "deepseek"
            setup = ours(T, name, int(block), m, layers) if mine else peer_product(T, entry, m, layers)
            if setup:
                table[f"{label} {m}x{K}x{N}"] = setup
    return table


def goal(case: str) -> float | None:
    """Against llama.cpp and ONNX Runtime; int8 products against PyTorch."""
    if case.startswith("int_mm"):
        return 0.97
    product, _, peer = case.partition(", ")
    name, _, shape = product.split()
    _, four, eight = ROWS[int(shape.partition("x")[0])]
    return None if not peer else four if name.startswith("int4") else eight


def why(case: str) -> str:
    product, _, peer = case.partition(", ")
    if not product.split()[-1].startswith("512x"):
        return "both read the weights at the memory's pace"
    if peer == "onnxruntime":
        return "asks for 75 % of VNNI's peak" if product.startswith("int4 32 ") else "asks for more than VNNI's peak"
    return "a zero point costs one more instruction" if product.startswith("int4_zero") else ""


if __name__ == "__main__":
    main("qmatmul", cases, goals=goal, peers=("llama_cpp", "onnxruntime", "torch"), why=why)
