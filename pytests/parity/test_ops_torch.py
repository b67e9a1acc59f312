"""Every op that PyTorch has: values, gradients, dtypes and strides of views, on the samples of opinfo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import _C
from opinfo import REGISTRY, OpInfo
from opinfo.core import DT, RTOL, Filled, fill, leaves, outputs, round_low, to_numpy, tree_map

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

BASES = {full.split(".")[0] for full in _C.op_table()}
FUNCTIONAL = (
    "softmax",
    "log_softmax",
    "layer_norm",
    "rms_norm",
    "embedding",
    "linear",
    "cross_entropy",
    "nll_loss",
    "one_hot",
)
OTHER_WAY: dict[str, Callable[..., Any] | None] = {
    "unfold": lambda x, *a: x.unfold(*a),
    "type_as": lambda x, other: x.type_as(other),
    "fill": lambda x, value: torch.fill(x, value),
    "_slice": lambda x, dim=0, start=None, end=None, step=1: x[(slice(None),) * dim + (slice(start, end, step),)],
    "_to_dtype": lambda x, dtype: x.to(dtype),
    "_vector_norm": torch.linalg.vector_norm,
    "_matrix_transpose": lambda x: x.mT,
    "_restride": None,  # no counterpart
    "swiglu": lambda gate, up: torch.nn.functional.silu(gate) * up,
}


def call_op(name: str, args: Any, kwargs: Any) -> Any:
    return getattr(_C, name)(*args, **kwargs)


def torch_function(name: str) -> Callable[..., Any] | None:
    if name in OTHER_WAY:
        return OTHER_WAY[name]
    places = (torch.nn.functional, torch) if name in FUNCTIONAL else (torch, torch.nn.functional, torch.Tensor)
    return next((getattr(p, name) for p in places if hasattr(p, name)), None)


PAIRED = [info for name, info in sorted(REGISTRY.items()) if name in BASES and not info.random and torch_function(name)]
CASES = [pytest.param(info, i, id=f"{info.name}-{i}{s}") for info in PAIRED for i, s in enumerate(info.samples)]


def both(info: OpInfo, index: int, dtype: str, grad: bool) -> tuple[Any, Any, Any, Any]:
    """The same call for the two packages: (args, kwargs) each."""
    call = fill(info, index, dtype)
    ours = call.tensors(requires_grad=grad)

    def make(filled: Filled) -> Any:
        t = torch.from_numpy(np.array(filled.array)).to(getattr(torch, filled.dtype))
        return t.requires_grad_(grad and filled.spec.grad and t.dtype.is_floating_point)

    theirs = tree_map(make, (call.args, call.kwargs), Filled)
    return *ours, *tree_map(lambda d: getattr(torch, d.name), theirs, DT)


def numbers(t: Any) -> np.ndarray:
    t = t.detach()
    return t.double().numpy() if t.dtype.is_floating_point else t.numpy()


def weights(shape: Any) -> np.ndarray:
    return (0.5 + (np.arange(int(np.prod(shape))) * 0.37) % 1.0).reshape(tuple(shape))


def compare(info: OpInfo, index: int, dtype: str) -> None:
    args, kwargs, targs, tkwargs = both(info, index, dtype, info.grad and dtype == "float64")
    got = outputs(call_op(info.name, args, kwargs))
    want = outputs(torch_function(info.name)(*targs, **tkwargs))
    assert len(got) == len(want)
    tol = (
        {"rtol": RTOL[dtype] * info.tol, "atol": RTOL[dtype] * info.tol}
        if dtype in RTOL
        else {"rtol": 3e-6 * info.tol, "atol": 1e-6}
    )
    if dtype in ("bfloat16", "float16"):
        tol = {key: value * info.low_tol * 2 for key, value in tol.items()}
    for a, b in zip(got, want, strict=True):
        assert str(a.dtype).split(".")[-1] == str(b.dtype).split(".")[-1]
        np.testing.assert_allclose(to_numpy(a), numbers(b), **tol)
    if not (info.grad and dtype == "float64"):
        return
    pairs = [(a, b) for a, b in zip(got, want, strict=True) if b.requires_grad]
    inputs = [t for t in leaves((args, kwargs), deepseek.Tensor) if t.requires_grad]
    tinputs = [t for t in leaves((targs, tkwargs), torch.Tensor) if t.requires_grad]
    if not pairs or not inputs:
        return
    try:
        expected = torch.autograd.grad(
            [b for _, b in pairs], tinputs, [torch.from_numpy(weights(b.shape)) for _, b in pairs], allow_unused=True
        )
    except (RuntimeError, NotImplementedError):
        return  # torch has no gradient for this call; ours is checked by gradcheck
    assert all(a.requires_grad for a, _ in pairs)
    found = deepseek.autograd.grad(
        [a for a, _ in pairs], inputs, [deepseek.from_numpy(weights(a.shape)) for a, _ in pairs], allow_unused=True
    )
    finite = all(np.isfinite(to_numpy(t)).all() for t in inputs)
    for a, b in zip(found, expected, strict=True):
        ours = to_numpy(a) if a is not None else np.zeros(())
        theirs = numbers(b) if b is not None else np.zeros(())
        # At NaN and inf a gradient depends on the formula chosen, not on the function: only torch's finite values bind.
        known = np.broadcast_to(finite | np.isfinite(theirs), np.broadcast_shapes(ours.shape, theirs.shape))
        ours, theirs = (np.broadcast_to(g, known.shape)[known] for g in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9 * info.tol, atol=1e-9)


@pytest.mark.parametrize(("info", "index"), CASES)
def test_values_dtypes_and_gradients(info: OpInfo, index: int) -> None:
    for dtype in (
        *info.floats,
        *(info.ints if info.samples[index].fits_integers() else ()),
        *(info.low if info.samples[index].low else ()),
    ):
        compare(info, index, dtype)


@pytest.mark.parametrize(
    ("info", "index"),
    [
        case
        for case in CASES
        if case.values[0].name
        in (
            "transpose",
            "permute",
            "expand",
            "select",
            "_slice",
            "narrow",
            "diagonal",
            "unfold",
            "as_strided",
            "squeeze",
            "unsqueeze",
            "movedim",
            "swapaxes",
            "t",
            "view",
            "unflatten",
        )
    ],
)
def test_strides_of_views(info: OpInfo, index: int) -> None:
    args, kwargs, targs, tkwargs = both(info, index, "float32", False)
    a, b = call_op(info.name, args, kwargs), torch_function(info.name)(*targs, **tkwargs)
    assert tuple(a.stride()) == tuple(b.stride()) and a.storage_offset() == b.storage_offset()


def test_conversions_are_exact() -> None:
    """float32 to and from the 16-bit types, on all their values and on the midpoints between them."""
    bits = np.arange(2**16, dtype=np.uint16)
    for name, source in {
        "bfloat16": (bits.astype(np.uint32) << 16).view(np.float32),
        "float16": bits.view(np.float16).astype(np.float32),
    }.items():
        values = source[np.isfinite(source)]
        midpoints = (np.sort(values)[1:].astype(np.float64) + np.sort(values)[:-1]) / 2
        x = np.concatenate(
            [
                values,
                midpoints.astype(np.float32),
                np.array([np.inf, -np.inf, 3e38, -3e38, 1e-45, 65519.0, 65520.0], np.float32),
            ]
        )
        ours = deepseek.from_numpy(x.copy()).to(getattr(deepseek, name)).float().numpy()
        theirs = torch.from_numpy(x.copy()).to(getattr(torch, name)).float().numpy()
        np.testing.assert_array_equal(ours, theirs)
        if name == "bfloat16":
            np.testing.assert_array_equal(round_low(x, name), theirs)
