"""The samples of the op tests (`pytests/opinfo`) at sizes worth timing: every op, with the arguments it is tested with.

A sample is scaled by one factor for all of its dims that are not 1, so that equal sizes stay equal, and bounds of
indices with them. The program reads the entries and passes them on in a file (`write`); the measuring processes,
deepseek and PyTorch, whose functions have the same names, make calls of them (`cases`).
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The package's `__init__` reads all entries, some of which ask deepseek; the measuring processes need its types only.
ENTRIES = Path(__file__).resolve().parents[1] / "pytests"
if "opinfo" not in sys.modules:
    sys.modules["opinfo"] = types.ModuleType("opinfo")
    sys.modules["opinfo"].__path__ = [str(ENTRIES / "opinfo")]

from opinfo.core import DT, OpInfo, Sample, Spec, leaves, tree_map  # noqa: E402

FILE = "DEEPSEEK_BENCH_OPS"  # names the file with the samples

SIZES = {"1e1": 10, "1e3": 10**3, "1e5": 10**5, "1e6": 10**6, "1e7": 10**7}
DTYPES = ("float32", "int64", "bfloat16")
SAMPLES = 3  # of an op, that differ in more than sizes
# Ops with a list of sizes that are those of tensors.
WITH_SIZES = ("layer_norm", "rms_norm", "reshape", "view", "expand", "broadcast_to", "sum_to_size")
# What values may be: half of the elements of the first tensor have one of these.
VALUES: dict[str, Any] = {
    "-inf": -math.inf,
    "inf": math.inf,
    "nan": math.nan,
    "zero": 0.0,
    "subnormal": 1e-39,
    "million": 1e6,
    "billion": 1e9,
    "-billion": -1e9,
    "wide": None,  # all of them times 50
}
VALUES_SIZE = "1e6"
# Samples that the tests do not have, or whose sizes are no tensors'.
MORE: dict[str, Callable[[Any, int, Any], Callable[[], Any]]] = {
    "zeros": lambda T, n, dtype: lambda: T.zeros(n, dtype=dtype),
    "linspace": lambda T, n, dtype: lambda: T.linspace(0, 1, n),
    "eye": lambda T, n, dtype: lambda: T.eye(math.isqrt(n), dtype=dtype),
    "full": lambda T, n, dtype: lambda: T.full((n,), 3, dtype=dtype),
    "arange": lambda T, n, dtype: lambda: T.arange(n, dtype=dtype),
    "randn": lambda T, n, dtype: lambda: T.randn(n),
    "rand": lambda T, n, dtype: lambda: T.rand(n),
    "randint": lambda T, n, dtype: lambda: T.randint(0, 100, (n,)),
    "randperm": lambda T, n, dtype: lambda: T.randperm(n),
    "v[index]": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: v[i]),
    "a[:, index]": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: m[:, j]),
    "a[index]": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: m[j]),
    "a[mask]": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: functools.partial(m.__getitem__, m > 0)),
    "a[::2, 1:]": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: m[::2, 1:].clone()),
    "bincount, few": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: T.bincount(i % 50)),
    "bucketize": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: T.bucketize(i, j.sort().values)),
    "isin": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: T.isin(i, j)),
    "tril_indices": lambda T, n, dtype: lambda: T.tril_indices(math.isqrt(n), math.isqrt(n)),
    "embedding": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: T.nn.functional.embedding(j, m)),
    "transposed copy": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: m.t().contiguous()),
    "flip both": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: m.flip(0, 1)),
    "roll rows": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: m.roll(3, 1)),
    "roll all": lambda T, n, dtype: indexed(T, n, dtype, lambda v, m, i, j: lambda: m.roll(3)),
    "gather rows": lambda T, n, dtype: indexed(
        T, n, dtype, lambda v, m, i, j: functools.partial(m.gather, 1, i.reshape(m.shape) % m.shape[1])
    ),
    "gather columns": lambda T, n, dtype: indexed(
        T, n, dtype, lambda v, m, i, j: functools.partial(m.gather, 0, i.reshape(m.shape) % m.shape[0])
    ),
}


def indexed(T: Any, n: int, dtype: Any, use: Callable[..., Callable[[], Any]]) -> Callable[[], Any]:
    """A vector, a square matrix, indices of all of the one and of the rows of the other."""
    side = math.isqrt(n)
    v = T.randint(-99, 99, (side * side,)).to(dtype)
    return use(v, v.reshape(side, side), T.randint(0, side * side, (side * side,)), T.randint(0, side, (side,)))


def function(T: Any, name: str) -> Callable[..., Any] | None:
    """What users call: `T.name`, `T.nn.functional.name`, or the method."""
    if name.startswith("_"):
        return None
    for place in (T, T.nn.functional, T.Tensor):
        if callable(found := getattr(place, name, None)):
            return found
    return None


def scalable(sample: Sample) -> bool:
    specs = list(sample.specs())
    return bool(specs) and all(
        0 not in spec.shape and (spec.value is None or math.prod(spec.shape) == 1) for spec in specs
    )


def kinds(info: OpInfo) -> Iterator[tuple[str, Sample]]:
    """A few samples of an op that differ in ranks or in other arguments."""
    seen: list[tuple[Any, ...]] = []
    for sample in (*info.rows, *info.big, *info.samples):
        ranks = tuple((len(spec.shape), spec.kind) for spec in sample.specs())
        rest = repr(tree_map(lambda spec: None, (sample.args, sample.kwargs), Spec))
        if scalable(sample) and max(map(len, (s.shape for s in sample.specs()))) and (ranks, rest) not in seen:
            seen.append((ranks, rest))
            others = [str(a) for a in (*sample.args, *sample.kwargs.items()) if not any(leaves(a, Spec))]
            yield ", ".join(["x".join(["n"] * rank) for rank, _ in ranks] + others), sample
            if len(seen) == SAMPLES:
                return


def scaled(name: str, sample: Sample, size: int) -> Sample:
    """The sample with about `size` elements in its largest tensor."""
    largest = max(sample.specs(), key=lambda spec: math.prod(spec.shape))
    long = [d for d in largest.shape if d > 1]
    factor = (size / math.prod(largest.shape)) ** (1 / max(1, len(long)))
    dims = {d: max(2, round(d * factor)) for spec in sample.specs() for d in spec.shape if d > 1}

    def resized(spec: Spec) -> Spec:
        hi = dims.get(int(spec.hi), int(spec.hi)) if spec.kind == "int" else spec.hi
        shape = tuple(dims.get(d, d) for d in spec.shape)
        return Spec(shape, spec.kind, spec.lo, hi, spec.grad, spec.value, spec.dtype, spec.unique)

    args, kwargs = tree_map(resized, (sample.args, sample.kwargs), Spec)
    if name in WITH_SIZES:
        args = tuple([dims.get(d, d) for d in a] if isinstance(a, (list, tuple)) else a for a in args)
    return Sample(args, kwargs)


def tensor(T: Any, spec: Spec, dtype: str, int_range: tuple[int, int]) -> Any:
    dtype = spec.dtype or (dtype if spec.kind == "float" else {"int": "int64", "bool": "bool"}[spec.kind])
    if spec.value is not None:
        return T.tensor(spec.value).to(getattr(T, dtype))
    if dtype == "bool":
        return T.rand(spec.shape) < 0.5
    if "int" in dtype:
        lo, hi = (int(spec.lo), int(spec.hi)) if spec.kind == "int" else int_range
        if spec.unique:
            return T.randperm(hi - lo)[: math.prod(spec.shape)].reshape(spec.shape) + lo
        return T.randint(max(lo, 0) if dtype[0] == "u" else lo, max(hi, lo + 1), spec.shape).to(getattr(T, dtype))
    return (T.rand(spec.shape) * (spec.hi - spec.lo) + spec.lo).to(getattr(T, dtype))


def with_values(T: Any, x: Any, value: float | None) -> Any:
    return x * 50 if value is None else T.where(T.rand(x.shape) < 0.5, T.full((), value, dtype=x.dtype), x)


@dataclass(frozen=True)
class Entry:
    """One call to time."""

    op: str
    sample: Sample
    dtype: str
    int_range: tuple[int, int]
    values: str = ""


def entries() -> dict[str, Entry]:
    """{"op (ranks, arguments) dtype size values": call}."""
    sys.path.append(str(ENTRIES))
    del sys.modules["opinfo"]
    package = importlib.import_module("opinfo")
    table: dict[str, Entry] = {}
    for name, info in package.REGISTRY.items():
        dtypes = [dtype for dtype in DTYPES if dtype in (*info.floats, *info.low, *info.ints)]
        for what, sample in kinds(info):
            for label, size in SIZES.items():
                larger = scaled(name, sample, size)
                for dtype in dtypes if any(spec.kind == "float" for spec in sample.specs()) else dtypes[:1]:
                    table[f"{name} ({what}) {dtype} {label}"] = Entry(name, larger, dtype, info.int_range)
            if info.special and isinstance(sample.args[0], Spec) and sample.args[0].kind == "float":
                usual = scaled(name, sample, SIZES[VALUES_SIZE])
                for values in VALUES:
                    case = f"{name} ({what}) float32 {VALUES_SIZE} {values}"
                    table[case] = Entry(name, usual, "float32", info.int_range, values)
    return table


def write(file: Path) -> None:
    """For the measuring processes."""
    file.write_bytes(pickle.dumps(entries()))
    os.environ[FILE] = str(file)


def setup(T: Any, entry: Entry) -> Callable[[], Any]:
    T.manual_seed(0)
    f, tensors = function(T, entry.op), (entry.sample.args, entry.sample.kwargs)
    assert f is not None
    args, kwargs = tree_map(lambda spec: tensor(T, spec, entry.dtype, entry.int_range), tensors, Spec)
    args, kwargs = tree_map(lambda d: getattr(T, d.name), (args, kwargs), DT)
    if entry.values:
        args = (with_values(T, args[0], VALUES[entry.values]), *args[1:])
    return lambda: f(*args, **kwargs)


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    """{name: setup} of what the library has."""
    found: dict[str, Entry] = pickle.loads(Path(os.environ[FILE]).read_bytes())
    table = {
        name: functools.partial(setup, T, entry) for name, entry in found.items() if function(T, entry.op) is not None
    }
    for what, make in MORE.items():
        for label, size in SIZES.items():
            for dtype in DTYPES:
                table[f"{what} {dtype} {label}"] = functools.partial(make, T, size, getattr(T, dtype))
    return table
