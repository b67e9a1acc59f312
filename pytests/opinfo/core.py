"""What a test needs to know about one op, as data.

An `OpInfo` is a name, a numpy reference and a list of samples. A sample is a call written with input *specs*
(`T(3, 4)`, `I(5, hi=3)`, `A([1.0, nan])`) in place of tensors: specs are filled with numbers per dtype at test time, so
that one line serves every dtype, every layout and the gradient checks. Nothing here imports the package under test
before a test runs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

FLOATS = ("float32", "float64")
LOW = ("bfloat16", "float16")
SIGNED = ("int64", "int32", "int16", "int8")
INTS = (*SIGNED, "uint8")
INTS_BOOL = (*INTS, "bool")

REGISTRY: dict[str, OpInfo] = {}


@dataclass(frozen=True)
class Spec:
    """One tensor argument: `kind` is "float" (takes the dtype under test), "int" (int64) or "bool"."""

    shape: tuple[int, ...]
    kind: str = "float"
    lo: float = -2.0
    hi: float = 2.0
    grad: bool = True
    value: Any = None
    dtype: str | None = None  # fixed dtype, whatever the test asks for
    unique: bool = False  # integers without repetition (index_copy, scatter: order must not matter)

    def fill(self, dtype: str, rng: np.random.Generator, int_range: tuple[int, int]) -> np.ndarray:
        """The numbers of this input in the numpy dtype that can hold `dtype` exactly."""
        dtype = self.dtype or (dtype if self.kind == "float" else {"int": "int64", "bool": "bool"}[self.kind])
        held = np.dtype("float32" if dtype in LOW else dtype)
        if self.value is not None:
            return np.array(self.value, dtype=held)
        if self.kind == "bool" or dtype == "bool":
            return rng.random(self.shape) < 0.5
        if self.kind == "int" or held.kind in "iu":
            lo, hi = (int(self.lo), int(self.hi)) if self.kind == "int" else int_range
            if self.unique:
                return rng.permutation(np.arange(lo, hi))[: math.prod(self.shape)].reshape(self.shape).astype(held)
            return rng.integers(max(lo, np.iinfo(held).min) if held.kind == "i" else max(lo, 0), hi, self.shape).astype(
                held
            )
        # A shuffled, jittered grid: no two values are close, so kinks and ties are not hit by finite differences.
        n = math.prod(self.shape)
        grid = (np.arange(n) + 0.5 + 0.4 * (rng.random(n) - 0.5)) / max(n, 1)
        return (self.lo + (self.hi - self.lo) * rng.permutation(grid)).reshape(self.shape).astype(held)


def T(*shape: int, lo: float = -2.0, hi: float = 2.0, grad: bool = True, dtype: str | None = None) -> Spec:
    """A floating input of the dtype under test, spread over (lo, hi)."""
    return Spec(shape, "float", lo, hi, grad, dtype=dtype)


def I(*shape: int, lo: int = 0, hi: int = 10, unique: bool = False, dtype: str = "int64") -> Spec:  # noqa: E743
    """An integer input with values in [lo, hi)."""
    return Spec(shape, "int", lo, hi, grad=False, unique=unique, dtype=dtype)


def B(*shape: int) -> Spec:
    """A bool input."""
    return Spec(shape, "bool", grad=False)


def A(value: Any, dtype: str | None = None, grad: bool = True) -> Spec:
    """A literal. Floats take the dtype under test unless `dtype` is given; integers are int64, bools bool."""
    array = np.asarray(value)
    kind = {"f": "float", "i": "int", "u": "int", "b": "bool"}[array.dtype.kind]
    return Spec(array.shape, kind, grad=grad and kind == "float", value=value, dtype=dtype)


@dataclass(frozen=True)
class DT:
    """A dtype argument by name: `deepseek.float32` for the op, np.float32 for the reference."""

    name: str


@dataclass(frozen=True)
class Sample:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grad: bool = True  # finite differences make sense here
    gradgrad: bool = True
    low: bool = True  # run in bfloat16 and float16
    ints: bool = True  # run in the op's integer dtypes
    noncontig: bool = True

    def but(self, **changes: bool) -> Sample:
        """The same call with some properties switched off: `S(...).but(grad=False)`."""
        return replace(self, **changes)

    def specs(self) -> Iterator[Spec]:
        yield from leaves((self.args, self.kwargs), Spec)

    def fits_integers(self) -> bool:
        """Every floating literal is a whole, non-negative number, so that the call also makes sense for integers."""
        literals = [np.asarray(spec.value) for spec in self.specs() if spec.kind == "float" and spec.value is not None]
        return self.ints and all(np.isfinite(v).all() and (v >= 0).all() and (v == np.round(v)).all() for v in literals)

    def __str__(self) -> str:
        parts = [_show(a) for a in self.args] + [f"{k}={_show(v)}" for k, v in self.kwargs.items()]
        return "(" + ", ".join(parts) + ")"


def S(*args: Any, **kwargs: Any) -> Sample:
    """One call of the op."""
    return Sample(args, kwargs)


def _show(value: Any) -> str:
    if isinstance(value, Spec):
        return f"{value.kind}{list(value.shape)}" if value.value is None else str(value.value).replace("\n", "")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_show(v) for v in value) + "]"
    return repr(value)


@dataclass(frozen=True)
class ErrorCase:
    sample: Sample
    error: type[BaseException]
    match: str  # a regular expression, found anywhere, any case


def E(error: type[BaseException], match: str, *args: Any, **kwargs: Any) -> ErrorCase:
    """A call that must raise `error` (or a class derived from it) with a text that matches."""
    return ErrorCase(Sample(args, kwargs), error, match)


@dataclass(frozen=True)
class OpInfo:
    """Everything `test_ops.py` checks about one op.

    ref: numpy function with the op's arguments (float64 arrays for floating dtypes); None when `check` judges instead.
    out: dtype rule of the first output: "same", "bool", "int64", "float" (integers become the default dtype), "sum"
        (integers become int64), "stat" (float32 for low precision), or a dtype name.
    """

    name: str
    ref: Callable[..., Any] | None
    samples: tuple[Sample, ...]
    errors: tuple[ErrorCase, ...] = ()
    grad: bool = True
    gradgrad: bool = True
    out: str = "same"
    ints: tuple[str, ...] = ()
    floats: tuple[str, ...] = FLOATS
    low: tuple[str, ...] = LOW
    int_range: tuple[int, int] = (-4, 5)
    tol: float = 1.0  # factor on the default tolerance of each dtype
    low_tol: float = 1.0
    special: int = 0  # how many leading tensor arguments get NaN, inf, zeros and huge values
    special_skip: tuple[float, ...] = ()
    big: tuple[Sample, ...] = ()  # sizes that are cut over threads
    # A row of the result must not depend on how many rows there are; rows count along the first dim of the first tensor
    # and of tensors of the same first size. Without `rows`, that must hold in all samples that have several rows.
    rows: tuple[Sample, ...] = ()
    no_rows: str = ""  # why the result has no rows in that sense
    check: Callable[..., None] | None = None  # check(result, *args, **kwargs) in place of a reference
    random: bool = False
    writes: bool = False  # fills its first argument in place
    noncontig: bool = True  # False: the op refuses some layouts by definition (view)
    stream: bool = False  # tensors are not inputs (creation), so layout properties do not apply
    zero_size: bool = True  # False: no zero-size input has a meaning
    scalar: bool = True  # False: a 0-d input has no meaning
    notes: str = field(default="", compare=False)

    def register(self) -> OpInfo:
        if self.name in REGISTRY:
            raise ValueError(f"two OpInfo entries for {self.name!r}")
        REGISTRY[self.name] = self
        return self


def op(name: str, ref: Callable[..., Any] | None, *samples: Sample, **fields: Any) -> OpInfo:
    """Register one entry: `op("tril", np.tril, S(T(3, 4)), S(T(3, 4), -1))`."""
    for key in ("errors", "big", "rows"):
        if key in fields:
            fields[key] = tuple(fields[key])
    return OpInfo(name, ref, tuple(samples), **fields).register()


def leaves(tree: Any, kind: type | tuple[type, ...]) -> Iterator[Any]:
    """All objects of a type in nested lists, tuples and dicts, in order."""
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from leaves(item, kind)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from leaves(item, kind)


def tree_map(f: Callable[[Any], Any], tree: Any, kind: type | tuple[type, ...]) -> Any:
    """`tree` with f applied to every object of a type."""
    if isinstance(tree, kind):
        return f(tree)
    if isinstance(tree, list):
        return [tree_map(f, item, kind) for item in tree]
    if isinstance(tree, tuple):
        return tuple(tree_map(f, item, kind) for item in tree)
    if isinstance(tree, dict):
        return {key: tree_map(f, item, kind) for key, item in tree.items()}
    return tree


def seed_of(name: str, index: int) -> int:
    return zlib.crc32(f"{name}/{index}".encode())


@dataclass
class Call:
    """A sample filled with numbers: `args`/`kwargs` hold `Filled` objects where tensors go."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def for_reference(self, float_result: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for numpy: float64 arrays for floats; integers as they are unless the op makes floats of them."""
        args, kwargs = tree_map(lambda f: f.wide(float_result), (self.args, self.kwargs), Filled)
        return tree_map(lambda d: np.dtype("float32" if d.name in LOW else d.name), (args, kwargs), DT)

    def tensors(self, requires_grad: bool = False, layout: Callable[[Any], Any] | None = None) -> tuple[tuple, dict]:
        """Arguments for the package: fresh leaf tensors, optionally in another memory layout."""
        import deepseek

        def build(filled: Filled) -> Any:
            tensor = filled.tensor()
            if layout is not None:
                tensor = layout(tensor)
            if requires_grad and filled.spec.grad and tensor.dtype.is_floating_point:
                tensor = tensor.detach().requires_grad_(True)
            return tensor

        args, kwargs = tree_map(build, (self.args, self.kwargs), Filled)
        return tree_map(lambda d: getattr(deepseek, d.name), (args, kwargs), DT)


@dataclass
class Filled:
    spec: Spec
    array: np.ndarray
    dtype: str

    def wide(self, always: bool = False) -> np.ndarray:
        floating = self.array.dtype.kind == "f" or (always and self.spec.kind == "float")
        return self.array.astype(np.float64) if floating else self.array.copy()

    def tensor(self) -> Any:
        import deepseek

        tensor = deepseek.from_numpy(np.array(self.array, order="C"))
        return tensor.to(getattr(deepseek, self.dtype)) if self.dtype in LOW else tensor


def fill(info: OpInfo, index: int, dtype: str, sample: Sample | None = None) -> Call:
    """Numbers for a sample, the same in every run; for low precision they are exactly representable."""
    sample = info.samples[index] if sample is None else sample
    rng = np.random.default_rng(seed_of(info.name, index))

    def make(spec: Spec) -> Filled:
        array = spec.fill(dtype, rng, info.int_range)
        actual = spec.dtype or (dtype if spec.kind == "float" else array.dtype.name)
        if actual in LOW:
            array = round_low(array, actual)
        return Filled(spec, array, actual)

    args, kwargs = tree_map(make, (sample.args, sample.kwargs), Spec)
    return Call(args, kwargs)


def round_low(array: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values rounded to what bfloat16 or float16 can hold."""
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    bits = np.atleast_1d(array.astype(np.float32)).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32)
    return np.where(np.isnan(array), array, rounded.view(np.float32).reshape(array.shape)).astype(np.float32)


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor's values as numpy: floats as float64, others as they are."""
    tensor = tensor.detach()
    return tensor.double().numpy() if tensor.dtype.is_floating_point else tensor.numpy()


def outputs(result: Any) -> list[Any]:
    """The tensors of a result, in order; Python scalars are kept."""
    if isinstance(result, (list, tuple)):
        return [item for part in result for item in outputs(part)]
    return [result]


RTOL = {"float64": 1e-11, "float32": 3e-6, "bfloat16": 1.6e-2, "float16": 2e-3}
ATOL = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 1e-2, "float16": 1e-3}


def assert_close(actual: Any, expected: Any, dtype: str, factor: float = 1.0, what: str = "") -> None:
    """Shapes equal; integers and bools equal; floats within the tolerance of `dtype`, NaN and inf in place."""
    got = to_numpy(actual) if hasattr(actual, "detach") else np.asarray(actual)
    want = np.asarray(expected)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if got.dtype.kind != "f" and want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    kind = dtype if dtype in RTOL else "float32"
    with np.errstate(all="ignore"):
        if kind == "float32" or kind == "float16":  # overflow to inf where the dtype does
            want = want.astype(kind).astype(np.float64)
    np.testing.assert_allclose(
        got.astype(np.float64), want, rtol=RTOL[kind] * factor, atol=ATOL[kind] * factor, equal_nan=True, err_msg=what
    )
