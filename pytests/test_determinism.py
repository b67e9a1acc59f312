"""The same bits from run to run, for any number of threads and wherever they cut the work, and for a row alone as in a batch.

Samples are far below the sizes at which a kernel uses a second thread; `grain_limit` of 1 lets every kernel cut them
too. What an op claims about rows is data of its entry in `opinfo/` (`rows`, `no_rows`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import deepseek
import pytest
from deepseek import _C
from opinfo import OpInfo, Sample
from opinfo.core import FLOATS, LOW, Call, Filled, fill, leaves, outputs, to_numpy, tree_map
from test_ops import KNOWN, gradients, rows_of

Tensor = deepseek.Tensor
UNSET = "empty", "new_empty"  # their values are whatever was in memory
THREADS = (1, 2, 3, 5)
ROWS = (1, 2, 3, 5, 8, 16, 33)
STEADY = [info for info in KNOWN if not info.name.startswith(UNSET)]
each_op = pytest.mark.parametrize("info", STEADY, ids=lambda info: info.name)


@contextlib.contextmanager
def cut_over(threads: int, grain: int = 1) -> Iterator[None]:
    """Kernels use `threads` threads for work of `grain` items and more (0: the real limits)."""
    before = deepseek.get_num_threads()
    deepseek.set_num_threads(threads)
    _C._set_grain_limit(grain)
    try:
        yield
    finally:
        deepseek.set_num_threads(before)
        _C._set_grain_limit(0)


def bits(value: Any) -> Any:
    """Dtype, size and bytes (floats as float64); what is not a tensor stands for itself."""
    return (str(value.dtype), tuple(value.shape), to_numpy(value).tobytes()) if isinstance(value, Tensor) else value


def results(info: OpInfo, call: Call) -> list[Any]:
    """Bits of the outputs and of the gradients."""
    result, grads = gradients(info, call)
    return [bits(t) for t in [*outputs(result), *grads]]


def dtypes_of(info: OpInfo) -> tuple[str, ...]:
    return (*info.floats, *[d for d in info.low if d == "bfloat16"], *info.ints[:1])


def calls(info: OpInfo, samples: Iterable[Sample]) -> Iterator[tuple[str, Call]]:
    for sample in samples:
        for dtype in dtypes_of(info):
            if dtype in info.floats or (sample.low if dtype in info.low else sample.fits_integers()):
                yield f"{info.name}{sample} [{dtype}]", fill(info, 0, dtype, sample)


# --- threads --------------------------------------------------------------------------------------------------------
@each_op
def test_threads_and_cuts_do_not_change_bits(info: OpInfo) -> None:
    """Every sample, every size class, forward and gradients; random ops draw the same numbers."""
    todo = list(calls(info, (*info.samples, *info.big)))
    with cut_over(1):
        serial = [results(info, call) for _, call in todo]
    for threads in THREADS[1:]:
        with cut_over(threads):
            for (name, call), expected in zip(todo, serial, strict=True):
                assert results(info, call) == expected, f"1 and {threads} threads differ: {name}"


def repeat(info: OpInfo, times: int) -> None:
    """The first sample, and the first of the sizes that are cut anyway."""
    with cut_over(2):
        for name, call in calls(info, (*info.samples[:1], *info.big[:1])):
            first = results(info, call)
            for i in range(1, times):
                assert results(info, call) == first, f"run {i} differs: {name}"


@each_op
def test_five_runs(info: OpInfo) -> None:
    repeat(info, 5)


@pytest.mark.slow
@each_op
def test_a_hundred_runs(info: OpInfo) -> None:
    repeat(info, 100)


# --- rows -----------------------------------------------------------------------------------------------------------
def is_view(info: OpInfo) -> bool:
    return all(row.kind in ("view", "create") for row in rows_of(info)) and bool(rows_of(info))


def row_samples(info: OpInfo) -> list[Sample]:
    """What the entry names, else whatever sample starts with a tensor of several rows."""
    if info.rows:
        return list(info.rows)
    first = [(sample, next(sample.specs(), None)) for sample in (*info.samples, *info.big)]
    return [s for s, spec in first if spec is not None and len(spec.shape) > 1 and spec.shape[0] > 1 and 0 not in spec.shape]


def counts_rows(filled: Filled, rows: int) -> bool:
    return filled.array.ndim > 0 and filled.array.shape[0] == rows


def first_rows(call: Call, rows: int, k: int) -> Call:
    """The call with `k` of its `rows` rows: tensors whose first size is that of the first tensor are cut."""
    args, kwargs = tree_map(
        lambda f: dataclasses.replace(f, array=f.array[:k]) if counts_rows(f, rows) else f,
        (call.args, call.kwargs),
        Filled,
    )
    return Call(args, kwargs)


def rows_and_gradients(info: OpInfo, call: Call, rows: int, k: int) -> list[Any]:
    """The first k rows of the outputs, and of the gradients of what has rows."""
    result, grads = gradients(info, call)
    inputs = [f for f in leaves((call.args, call.kwargs), Filled) if f.spec.grad and f.dtype in (*FLOATS, *LOW)]
    kept = [g for f, g in zip(inputs, grads, strict=True) if counts_rows(f, rows)] if grads else []
    return [bits(t[:k]) if t is not None else None for t in [*outputs(result), *kept]]


@pytest.mark.parametrize("info", [i for i in STEADY if not i.no_rows and not is_view(i)], ids=lambda info: info.name)
def test_a_row_does_not_depend_on_the_batch(info: OpInfo) -> None:
    samples = row_samples(info)
    assert samples, f"say what the rows of {info.name} are (`rows`), or why it has none (`no_rows`)"
    for name, call in calls(info, samples):
        rows = next(leaves((call.args, call.kwargs), Filled)).array.shape[0]
        for k in ROWS:
            if k < rows:
                part = first_rows(call, rows, k)
                whole = rows_and_gradients(info, call, rows, k)
                assert rows_and_gradients(info, part, k, k) == whole, f"{k} of {rows} rows: {name}"
