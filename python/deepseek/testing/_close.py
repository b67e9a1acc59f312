"""``assert_close``: are two structures of tensors and numbers equal within a tolerance."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import deepseek
from deepseek import _C, Tensor

# dtype name -> (rtol, atol); everything that is not here must be equal.
_TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
}


def _dtype_name(dtype: Any) -> str:
    return str(dtype).rsplit(".", 1)[-1]


def _default_tolerances(*dtypes: Any) -> tuple[float, float]:
    pairs = [_TOLERANCES.get(_dtype_name(dtype), (0.0, 0.0)) for dtype in dtypes]
    return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)


def _tolerances(rtol: float | None, atol: float | None, *dtypes: Any) -> tuple[float, float]:
    if (rtol is None) != (atol is None):
        raise ValueError(f"rtol and atol must both be specified or both be unspecified, but got {rtol=} and {atol=}")
    if rtol is None or atol is None:
        return _default_tolerances(*dtypes)
    return rtol, atol


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Assert that ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

    Args:
        actual, expected: tensors, numbers, None, or sequences and mappings of them (of the same structure).
        allow_subclasses: whether two subclasses of Tensor may be compared.
        rtol, atol: given together; by default float32 has 1.3e-6 and 1e-5, float64 1e-7 and 1e-7, bfloat16 1.6e-2 and
            1e-5, float16 1e-3 and 1e-5, other dtypes 0 and 0.
        equal_nan: whether two NaN are equal.
        check_dtype: whether the dtypes must be the same.
        check_stride: whether the strides must be the same.
        check_device, check_layout: accepted for torch's signature; there is one device and one layout.
        msg: replaces the message, or makes it from the usual one.

    Raises:
        AssertionError: they are not close; the message counts the mismatches and shows the greatest differences.
        TypeError: something that cannot be compared.
    """
    options = {
        "allow_subclasses": allow_subclasses,
        "rtol": rtol,
        "atol": atol,
        "equal_nan": equal_nan,
        "check_dtype": check_dtype,
        "check_stride": check_stride,
    }
    for where, a, e in _pairs(actual, expected, ""):
        problem = _difference(a, e, options)
        if problem is not None:
            text = problem + (f"\n\nThe failure occurred for item {where}" if where else "")
            if msg is not None:
                text = msg(text) if callable(msg) else msg
            raise AssertionError(text)


def _is_leaf(value: Any) -> bool:
    return isinstance(value, (Tensor, numbers.Number, str, bytes)) or value is None or hasattr(value, "__array__")


def _pairs(actual: Any, expected: Any, where: str) -> list[tuple[str, Any, Any]]:
    """The leaves of both structures side by side, each with its place."""
    if _is_leaf(actual) or _is_leaf(expected):
        return [(where, actual, expected)]
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            raise AssertionError(
                "The keys of the mappings do not match:\n"
                f"Missing keys in the actual mapping: {sorted(expected.keys() - actual.keys(), key=str)}\n"
                f"Additional keys in the actual mapping: {sorted(actual.keys() - expected.keys(), key=str)}"
            )
        return [leaf for key in expected for leaf in _pairs(actual[key], expected[key], f"{where}[{key!r}]")]
    if isinstance(actual, Sequence) and isinstance(expected, Sequence):
        if len(actual) != len(expected):
            raise AssertionError(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}")
        both = enumerate(zip(actual, expected, strict=True))
        return [leaf for place, (a, e) in both for leaf in _pairs(a, e, f"{where}[{place}]")]
    place = f" at {where}" if where else ""
    raise TypeError(f"cannot compare {_C._type_name(actual)} with {_C._type_name(expected)}{place}")


def _difference(actual: Any, expected: Any, options: dict[str, Any]) -> str | None:
    """What is wrong with one pair, or None."""
    if actual is None or expected is None:
        return None if actual is expected else f"None mismatch: {actual} is not {expected}"
    if isinstance(actual, (str, bytes)) or isinstance(expected, (str, bytes)):
        raise TypeError("assert_close compares tensors and numbers, not text; use == for it")
    numbers_only = isinstance(actual, numbers.Number) and isinstance(expected, numbers.Number)
    if numbers_only:
        return _number_difference(actual, expected, options)
    if not options["allow_subclasses"] and type(actual) is not type(expected):
        raise AssertionError(f"type mismatch: {_C._type_name(actual)} and {_C._type_name(expected)}")
    for value in (actual, expected):
        if isinstance(value, numbers.Number):
            raise TypeError(f"cannot compare {_C._type_name(actual)} with {_C._type_name(expected)}")
    return _tensor_difference(deepseek.as_tensor(actual), deepseek.as_tensor(expected), options)


def _number_difference(actual: Any, expected: Any, options: dict[str, Any]) -> str | None:
    if options["check_dtype"] and type(actual) is not type(expected):
        return f"The types of the numbers do not match: {_C._type_name(actual)} != {_C._type_name(expected)}"
    if isinstance(actual, bool) or isinstance(expected, bool):
        return None if actual == expected else f"Booleans mismatch: {actual} is not {expected}"
    exact = isinstance(actual, int) and isinstance(expected, int)
    rtol, atol = _tolerances(options["rtol"], options["atol"], "int64" if exact else "float64")
    if _close(actual, expected, rtol, atol, options["equal_nan"]):
        return None
    difference = abs(actual - expected)
    relative = difference / abs(expected) if expected else math.inf
    return (
        f"Scalars are not close!\n\nExpected {expected} but got {actual}.\n"
        f"Absolute difference: {difference} (up to {atol} allowed)\n"
        f"Relative difference: {relative} (up to {rtol} allowed)"
    )


def _close(actual: Any, expected: Any, rtol: float, atol: float, equal_nan: bool) -> bool:
    if actual == expected:
        return True
    if actual != actual and expected != expected:
        return equal_nan
    return math.isfinite(actual) and math.isfinite(expected) and abs(actual - expected) <= atol + rtol * abs(expected)


def as_array(tensor: Tensor) -> Any:
    """The values as a NumPy array that holds them exactly: float64, or int64 and uint8 as they are."""
    values = tensor.detach()
    return (values.to(deepseek.float64) if values.is_floating_point() else values).numpy()


def _tensor_difference(actual: Tensor, expected: Tensor, options: dict[str, Any]) -> str | None:
    if tuple(actual.shape) != tuple(expected.shape):
        return f"The values for attribute 'shape' do not match: {tuple(actual.shape)} != {tuple(expected.shape)}."
    if options["check_dtype"] and actual.dtype != expected.dtype:
        return f"The values for attribute 'dtype' do not match: {actual.dtype} != {expected.dtype}."
    if options["check_stride"] and tuple(actual.stride()) != tuple(expected.stride()):
        return f"The values for attribute 'stride()' do not match: {actual.stride()} != {expected.stride()}."
    import numpy as np

    rtol, atol = _tolerances(options["rtol"], options["atol"], actual.dtype, expected.dtype)
    a, e = as_array(actual), as_array(expected)
    if a.dtype != e.dtype or a.dtype == np.bool_:
        # Bools and mixed kinds are compared as wider numbers, exactly enough for the tolerance between them.
        a, e = (x.astype(np.float64 if "f" in (a.dtype.kind, e.dtype.kind) else np.int64) for x in (a, e))
    with np.errstate(all="ignore"):
        difference = np.abs(a - e)
        good = (a == e) | (np.isfinite(a) & np.isfinite(e) & (difference <= atol + rtol * np.abs(e)))
        if options["equal_nan"]:
            good |= (a != a) & (e != e)
        if good.all():
            return None
        relative = difference / np.abs(e)
    if a.ndim == 0:
        return _number_text(a, e, difference, relative, rtol, atol)
    return _array_text(a, e, np.where(good, 0, difference), np.where(good, 0, relative), good, rtol, atol)


def _number_text(a: Any, e: Any, difference: Any, relative: Any, rtol: float, atol: float) -> str:
    return (
        f"Scalars are not close!\n\nExpected {e.item()} but got {a.item()}.\n"
        f"Absolute difference: {difference.item()} (up to {atol} allowed)\n"
        f"Relative difference: {relative.item()} (up to {rtol} allowed)"
    )


def _array_text(a: Any, e: Any, difference: Any, relative: Any, good: Any, rtol: float, atol: float) -> str:
    import numpy as np

    def at_greatest(values: Any) -> tuple[int, ...]:
        place = np.argmax(np.where(np.isnan(values), np.inf, values))
        return tuple(int(i) for i in np.unravel_index(place, values.shape))

    bad = int((~good).sum())
    worst, worst_relative = at_greatest(difference), at_greatest(relative)
    equal = rtol == 0 and atol == 0
    return (
        f"Tensor-likes are not {'equal' if equal else 'close'}!\n\n"
        f"Mismatched elements: {bad} / {a.size} ({bad / a.size:.1%})\n"
        f"Greatest absolute difference: {difference[worst]} at index {worst}"
        + ("" if equal else f" (up to {atol} allowed)")
        + f"\nGreatest relative difference: {relative[worst_relative]} at index {worst_relative}"
        + ("" if equal else f" (up to {rtol} allowed)")
        + f"\nThere the actual value is {a[worst]} and the expected value {e[worst]}"
    )
