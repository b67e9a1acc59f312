"""Products with quantized weights in llama.cpp (its ggml library, through ctypes) and ONNX Runtime (MatMulNBits)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

THREADS = int(os.environ.get("DEEPSEEK_BENCH_THREADS", "1"))


def weights(n: int, k: int, layer: int) -> np.ndarray:
    return np.random.default_rng(layer).standard_normal((n, k), dtype=np.float32) * np.float32(0.02)


def inputs(m: int, k: int) -> np.ndarray:
    return np.random.default_rng(99).standard_normal((m, k), dtype=np.float32)


# --- llama.cpp ------------------------------------------------------------------------------------------------------
GGML_TYPES = {"Q4_0": 2, "Q8_0": 8, "Q4_K": 12}
REPACKED = ("Q4_0", "Q4_K")  # x86 has a faster layout for these


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Ggml:
    """The functions of libggml that a matrix product needs."""

    def __init__(self, package: Any) -> None:
        folder = Path(package.__file__).parent / "lib"
        self.base, self.cpu = (
            ctypes.CDLL(str(folder / f"libggml-{part}.so"), ctypes.RTLD_GLOBAL) for part in ("base", "cpu")
        )
        self.repack_buffers = self.cpu["_Z35ggml_backend_cpu_repack_buffer_typev"]
        self.repack_buffers.restype = ctypes.c_void_p
        self.backend = self.call(self.cpu.ggml_backend_cpu_init)
        self.call(self.cpu.ggml_backend_cpu_set_n_threads, self.backend, THREADS)

    @staticmethod
    def call(function: Any, *args: Any) -> Any:
        function.restype = ctypes.c_void_p
        return function(*[ctypes.c_void_p(a) if isinstance(a, int) and a > 2**31 else a for a in args])

    def context(self) -> int:
        self.base.ggml_init.argtypes = [InitParams]
        return int(self.call(self.base.ggml_init, InitParams(16 << 20, None, True)))

    def matrix(self, context: int, kind: int, rows: int, columns: int) -> int:
        size = ctypes.c_int64
        return int(self.call(self.base.ggml_new_tensor_2d, context, kind, size(columns), size(rows)))

    def put(self, tensor: int, data: np.ndarray) -> None:
        pointer = ctypes.c_void_p(data.ctypes.data)
        self.call(self.base.ggml_backend_tensor_set, tensor, pointer, ctypes.c_size_t(0), ctypes.c_size_t(data.nbytes))

    def quantized(self, values: np.ndarray, kind: int) -> np.ndarray:
        rows, columns = values.shape
        out = np.zeros(values.nbytes, dtype=np.uint8)
        size = ctypes.c_int64
        quantize = self.base.ggml_quantize_chunk
        pointers = (ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(out.ctypes.data))
        used = int(self.call(quantize, kind, *pointers, size(0), size(rows), size(columns), None))
        return out[:used]

    def product(self, name: str, m: int, k: int, n: int, layers: int) -> Callable[[], Any]:
        kind = GGML_TYPES[name]
        held, work = self.context(), self.context()
        stored = [self.matrix(held, kind, n, k) for _ in range(layers)]
        buffers = self.repack_buffers() if name in REPACKED else self.call(self.cpu.ggml_backend_cpu_buffer_type)
        assert self.call(self.base.ggml_backend_alloc_ctx_tensors_from_buft, held, buffers)
        for layer, tensor in enumerate(stored):
            self.put(tensor, self.quantized(weights(n, k, layer), kind))
        x = self.matrix(work, 0, m, k)
        graph = self.call(self.base.ggml_new_graph, work)
        for tensor in stored:
            result = self.call(self.base.ggml_mul_mat, work, tensor, x)
            self.call(self.base.ggml_build_forward_expand, graph, result)
        assert self.call(self.base.ggml_backend_alloc_ctx_tensors, work, self.backend)
        self.put(x, inputs(m, k))
        compute = self.base.ggml_backend_graph_compute
        compute.restype = ctypes.c_int
        backend, nodes = ctypes.c_void_p(self.backend), ctypes.c_void_p(graph)

        def run() -> None:
            assert compute(backend, nodes) == 0

        self.check(result, run, m, k, n, layers - 1)
        return run

    def check(self, result: int, run: Callable[[], Any], m: int, k: int, n: int, layer: int) -> None:
        run()
        got = np.zeros((m, n), dtype=np.float32)
        pointer, size = ctypes.c_void_p(got.ctypes.data), ctypes.c_size_t(got.nbytes)
        self.call(self.base.ggml_backend_tensor_get, result, pointer, ctypes.c_size_t(0), size)
        check(got, m, k, n, layer)


def check(got: np.ndarray, m: int, k: int, n: int, layer: int) -> None:
    """A peer that computes something else would be no peer."""
    want = inputs(m, k) @ weights(n, k, layer).T
    assert np.abs(got - want).mean() < 0.2 * np.abs(want).mean()


# --- ONNX Runtime ---------------------------------------------------------------------------------------------------
def blockwise(values: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes around 2^(bits - 1), 4-bit ones two a byte, and scales."""
    n, k = values.shape
    blocks = values.reshape(n, k // block, block)
    scales = np.abs(blocks).max(-1) / (2 ** (bits - 1) - 1)
    codes = (np.rint(blocks / scales[..., None]) + 2 ** (bits - 1)).astype(np.uint8)
    return (codes if bits == 8 else codes[..., ::2] | codes[..., 1::2] << 4), scales.ravel()


def onnx_product(runtime: Any, bits: int, block: int, m: int, k: int, n: int, layers: int) -> Callable[[], Any]:
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, results = [], [], []
    for layer in range(layers):
        codes, scales = blockwise(weights(n, k, layer), bits, block)
        names = [f"codes{layer}", f"scales{layer}"]
        constants += [numpy_helper.from_array(a, name) for a, name in zip((codes, scales), names, strict=True)]
        nodes.append(
            helper.make_node(
                "MatMulNBits", ["x", *names], [f"y{layer}"], domain="com.microsoft",
                K=k, N=n, bits=bits, block_size=block, accuracy_level=4,
            )
        )  # fmt: skip
        results.append(helper.make_tensor_value_info(f"y{layer}", TensorProto.FLOAT, [m, n]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [m, k])
    graph = helper.make_graph(nodes, "product", [x], results, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = THREADS
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", inputs(m, k))
    for result in results:
        binding.bind_output(result.name)
    session.run_with_iobinding(binding)
    check(binding.copy_outputs_to_cpu()[-1], m, k, n, layers - 1)
    return lambda: session.run_with_iobinding(binding)
