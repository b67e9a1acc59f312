"""The choice of a dtype, user-defined Functions under autocast, the spellings for a GPU, and the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import deepseek
import pytest
from deepseek import amp, bfloat16, float16, float32, optim
from deepseek.amp import dtype_choice

# --- best_dtype


def test_best_dtype_is_measured_once() -> None:
    choice = amp.best_dtype()
    assert choice is amp.best_dtype() and choice.dtype in (float32, bfloat16, float16)
    assert set(choice.speedup) == {"float32", "bfloat16", "float16"} and choice.speedup["float32"] == 1.0
    assert all(seconds > 0 for seconds in choice.seconds.values())
    assert str(choice).startswith(f"{choice.dtype} on {choice.isa}: ") and "ms" in str(choice)
    a = deepseek.ones(2, 2)
    with choice.autocast():
        assert (a @ a).dtype is choice.dtype


@pytest.mark.parametrize(
    ("bf16", "f16", "want", "text"),
    [
        (2.0, 1.0, bfloat16, "2.00x as fast as float32's (dots), and it needs no loss scale"),
        (1.0, 0.8, float32, "16-bit products are no faster here (bfloat16 1.00x, float16 0.80x"),
        (1.19, 1.19, float32, "they save memory, not time"),
        (1.5, 1.7, bfloat16, "needs no loss scale"),
        (1.0, 1.6, float16, "train with a GradScaler"),
        (1.25, 1.6, float16, "bfloat16's 1.25x"),
    ],
)
def test_the_choice(bf16: float, f16: float, want: Any, text: str) -> None:
    seconds = {float32: 1.0, bfloat16: 1 / bf16, float16: 1 / f16}
    choice = dtype_choice.choose(seconds, {"bfloat16": "dots", "float16": "read as float32"}, "avx9")
    assert choice.dtype is want and text in choice.reason and choice.isa == "avx9"


def test_the_instruction_set_counts() -> None:
    """Without BF16 dot products bfloat16 is read as float32, which cannot be much faster."""
    code = "from deepseek import amp; c = amp.best_dtype(); print(c.dtype, c.isa, c.reason)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"DEEPSEEK_ISA": "avx2"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "AVX2" in done.stdout.upper() and "AVX512_BF16" not in done.stdout


# --- user-defined Functions


class Product(deepseek.autograd.Function):
    @staticmethod
    @amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    @amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Any) -> Any:
        a, b = ctx.saved_tensors
        ctx.seen = deepseek.is_autocast_enabled("cpu")
        seen_by_backward.append((deepseek.is_autocast_enabled("cpu"), deepseek.get_autocast_dtype("cpu")))
        return grad @ b.t(), a.t() @ grad


seen_by_backward: list[Any] = []


class WideProduct(Product):
    @staticmethod
    @amp.custom_fwd(device_type="cpu", cast_inputs=float32)
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        assert a.dtype is float32 and b.dtype is float32 and not deepseek.is_autocast_enabled("cpu")
        ctx.save_for_backward(a, b)
        return a @ b


def test_backward_runs_under_the_autocast_of_its_forward() -> None:
    a, b = deepseek.randn(3, 3, requires_grad=True), deepseek.randn(3, 3, requires_grad=True)
    seen_by_backward.clear()
    with deepseek.autocast("cpu", dtype=float16):
        y = Product.apply(a, b)
    assert y.dtype is float16
    y.float().sum().backward()
    with deepseek.autocast("cpu"):
        Product.apply(a, b).float().sum().backward()
    y = Product.apply(a, b)
    with deepseek.autocast("cpu"):
        y.sum().backward()
    assert seen_by_backward == [(True, float16), (True, bfloat16), (False, bfloat16)]
    assert a.grad.dtype is float32


def test_cast_inputs() -> None:
    a, b = deepseek.randn(3, 3, dtype=bfloat16, requires_grad=True), deepseek.randn(3, 3, requires_grad=True)
    seen_by_backward.clear()
    with deepseek.autocast("cpu"):
        y = WideProduct.apply(a, b)
        assert y.dtype is float32
        y.sum().backward()
    assert seen_by_backward == [(False, bfloat16)] and a.grad.dtype is bfloat16 and b.grad.dtype is float32
    with pytest.raises(AssertionError):
        WideProduct.apply(a, b)  # no autocast: nothing is cast


def test_what_custom_fwd_casts() -> None:
    from collections import namedtuple

    Pair = namedtuple("Pair", "first second")
    seen: list[Any] = []

    class Function(deepseek.autograd.Function):
        @staticmethod
        @amp.custom_fwd(device_type="cpu", cast_inputs=float16)
        def forward(ctx: Any, *args: Any) -> Any:
            seen.extend(args)
            return args[0] * 1

    x = deepseek.ones(2)
    with deepseek.autocast("cpu"):
        Function.apply(x, [x, 1], {"a": x}, Pair(x, "text"), x.double(), x.int())
    assert [t.dtype for t in (seen[0], seen[1][0], seen[2]["a"], seen[3].first)] == [float16] * 4
    assert seen[1][1] == 1 and seen[3].second == "text" and isinstance(seen[3], Pair)
    assert seen[4].dtype is deepseek.float64 and seen[5].dtype is deepseek.int32


def test_custom_bwd_without_custom_fwd() -> None:
    class Function(deepseek.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return a * 1

        backward = staticmethod(amp.custom_bwd(lambda ctx, g: g, device_type="cpu"))

    with pytest.raises(RuntimeError, match="decorate it with custom_fwd"):
        Function.apply(deepseek.ones(1, requires_grad=True)).sum().backward()
    with pytest.raises(RuntimeError, match="'gpu' is not the name of a device"):
        amp.custom_fwd(device_type="gpu")
    amp.custom_fwd(device_type="cuda"), amp.custom_bwd(device_type="cuda")


# --- the spellings for a GPU


def test_scripts_for_a_gpu_run_on_the_cpu() -> None:
    import deepseek.cuda.amp as gpu

    a = deepseek.ones(2, 2)
    with gpu.autocast():
        assert (a @ a).dtype is bfloat16
        with gpu.autocast(dtype=float16):
            assert (a @ a).dtype is float16
        with gpu.autocast(enabled=False):
            assert (a @ a).dtype is float32
    scaler = gpu.GradScaler(init_scale=4.0)
    w = deepseek.ones(1, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.5)
    scaler.scale(w.sum()).backward()
    assert w.grad.item() == 4.0
    scaler.step(optimizer)
    scaler.update()
    assert w.item() == 0.5

    class Function(deepseek.autograd.Function):
        @staticmethod
        @gpu.custom_fwd(cast_inputs=float32)
        def forward(ctx: Any, a: Any) -> Any:
            assert a.dtype is float32
            return a * 2

        @staticmethod
        @gpu.custom_bwd
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * 2

    x = deepseek.ones(1, dtype=bfloat16, requires_grad=True)
    with deepseek.cuda.amp.autocast():
        Function.apply(x).sum().backward()
    assert x.grad.item() == 2.0
    assert deepseek.cpu.amp.autocast is gpu.autocast


# --- the page


def test_the_page_runs(capsys: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "mixed_precision.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec("\n".join(code), names)
    assert capsys.readouterr().out.endswith("steps=1, skipped_steps=0 (0.00%), inf_elements=0, nan_elements=0)\n")
    x = deepseek.tensor([3.0], dtype=bfloat16, requires_grad=True)
    with deepseek.autocast("cpu"):
        names["Square"].apply(x).backward()
    assert x.grad.item() == 6.0
