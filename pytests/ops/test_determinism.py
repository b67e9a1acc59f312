"""The same bits run by run, for any number of threads and any cut of the work, and for a row alone or in a batch.

Samples are far below the sizes at which a kernel uses a second thread; a grain limit of 1 lets every kernel cut them
too. What an op claims about rows is data of its entry in `opinfo/` (`rows`, `no_rows`); columns are in its samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import deepseek
import pytest
from deepseek import _C
from opinfo import OpInfo, Sample
from opinfo.core import FLOATS, LOW, Call, Filled, Spec, fill, leaves, outputs, to_numpy, tree_map
from opinfo.running import KNOWN, gradients, rows_of, run, stepped, transposed

Tensor = deepseek.Tensor
Layout = Callable[[Any], Any] | None
UNSET = "empty", "new_empty"  # their values are whatever was in memory
ROWS = (1, 2, 5, 16, 33)
STEADY = [info for info in KNOWN if not info.name.startswith(UNSET)]
each_op = pytest.mark.parametrize("info", STEADY, ids=lambda info: info.name)


@contextlib.contextmanager
def cut_over(threads: int, grain: int = 1) -> Iterator[None]:
    """Kernels cut work of more than `grain` items over `threads` threads (0: where they would anyway)."""
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


def results(info: OpInfo, call: Call, layout: Layout = None) -> list[Any]:
    """Bits of the outputs and of the gradients."""
    result, grads = gradients(info, call, layout)
    return [bits(t) for t in [*outputs(result), *grads]]


def calls(info: OpInfo, samples: Iterable[Sample], dtypes: Iterable[str]) -> Iterator[tuple[str, Call]]:
    for sample in samples:
        for dtype in dtypes:
            if dtype in info.floats or (sample.low if dtype in info.low else sample.fits_integers()):
                yield f"{info.name}{sample} [{dtype}]", fill(info, 0, dtype, sample)


def dtypes_of(info: OpInfo) -> tuple[str, ...]:
    return (*info.floats, *[d for d in info.low if d == "bfloat16"], *info.ints[:1])


# --- threads --------------------------------------------------------------------------------------------------------
def compare_threads(info: OpInfo, todo: list[tuple[str, Call]], layout: Layout = None) -> None:
    with cut_over(1):
        serial = [results(info, call, layout) for _, call in todo]
    for threads in (2, 3, 5):
        with cut_over(threads):
            for (name, call), expected in zip(todo, serial, strict=True):
                assert results(info, call, layout) == expected, f"1 and {threads} threads differ: {name}"


@each_op
def test_threads_and_cuts_do_not_change_bits(info: OpInfo) -> None:
    """Forward and gradients; random ops draw the same numbers."""
    large = [d for d in dtypes_of(info) if d in ("float32", "bfloat16")] or dtypes_of(info)[:1]
    compare_threads(info, [*calls(info, info.samples, dtypes_of(info)), *calls(info, info.big, large)])


@pytest.mark.slow
@each_op
def test_threads_and_cuts_of_large_inputs_of_every_dtype(info: OpInfo) -> None:
    compare_threads(info, list(calls(info, (*info.big, *info.rows), dtypes_of(info))))


@pytest.mark.slow
@pytest.mark.parametrize("layout", [transposed, stepped], ids=lambda f: f.__name__)
@pytest.mark.parametrize("info", [info for info in STEADY if info.noncontig], ids=lambda info: info.name)
def test_threads_and_cuts_in_other_layouts(info: OpInfo, layout: Layout) -> None:
    compare_threads(info, list(calls(info, (*info.samples, *info.big), dtypes_of(info))), layout)


def repeat(info: OpInfo, times: int, dtypes: Iterable[str]) -> None:
    """The first sample in small cuts, and the first of those that are cut anyway."""
    for samples, grain in ((info.samples[:1], 1), (info.big[:1], 0)):
        for name, call in calls(info, samples, dtypes):
            with cut_over(2, grain):
                first = results(info, call)
                for i in range(1, times):
                    assert results(info, call) == first, f"run {i} differs: {name}"


@each_op
def test_five_runs(info: OpInfo) -> None:
    repeat(info, 5, dtypes_of(info)[:1])


@pytest.mark.slow
@each_op
def test_a_hundred_runs(info: OpInfo) -> None:
    repeat(info, 100, dtypes_of(info))


# --- rows -----------------------------------------------------------------------------------------------------------
def is_view(info: OpInfo) -> bool:
    return all(row.view for row in rows_of(info)) and bool(rows_of(info))


def row_samples(info: OpInfo) -> list[Sample]:
    """What the entry names, else whatever sample starts with a tensor of several rows."""
    if info.rows:
        return list(info.rows)
    given = [(sample, next(sample.specs(), Spec(()))) for sample in (*info.samples, *info.big)]
    return [sample for sample, spec in given if len(spec.shape) > 1 and spec.shape[0] > 1 and 0 not in spec.shape]


def have_rows(call: Call) -> tuple[int, list[bool]]:
    """The number of rows, and for each tensor whether it has them: its first size is that of the first tensor."""
    shapes = [f.array.shape for f in leaves((call.args, call.kwargs), Filled)]
    return shapes[0][0], [shape[:1] == shapes[0][:1] for shape in shapes]


def first(call: Call, have: list[bool], k: int, axis: int = 0) -> Call:
    """The call with the first k rows (axis -1: columns) of the tensors that have them."""
    flags = iter(have)

    def cut(f: Filled) -> Filled:
        return dataclasses.replace(f, array=f.array[:k] if axis == 0 else f.array[..., :k]) if next(flags) else f

    return Call(*tree_map(cut, (call.args, call.kwargs), Filled))


def with_rows(info: OpInfo, call: Call, have: list[bool], layout: Layout) -> list[Any]:
    """The outputs, and the gradients of inputs that have rows."""
    result, grads = gradients(info, call, layout)
    inputs = zip(leaves((call.args, call.kwargs), Filled), have, strict=True)
    with_gradient = [rows for f, rows in inputs if f.spec.grad and f.dtype in (*FLOATS, *LOW)]
    kept = [g for g, rows in zip(grads, with_gradient, strict=True) if rows] if grads else []
    return [t for t in [*outputs(result), *kept] if t is not None]


def compare_rows(info: OpInfo, layout: Layout = None) -> None:
    samples = row_samples(info)
    assert samples, f"say what the rows of {info.name} are (`rows`), or why it has none (`no_rows`)"
    for name, call in calls(info, samples, dtypes_of(info)):
        rows, have = have_rows(call)
        batch = with_rows(info, call, have, layout)
        for k in [k for k in ROWS if k < rows]:
            alone = with_rows(info, first(call, have, k), have, layout)
            assert [bits(t) for t in alone] == [bits(t[:k]) for t in batch], f"{k} of {rows} rows: {name}"


WITH_ROWS = [info for info in STEADY if not info.no_rows and not is_view(info)]


@pytest.mark.parametrize("info", WITH_ROWS, ids=lambda info: info.name)
def test_a_row_does_not_depend_on_the_batch(info: OpInfo) -> None:
    compare_rows(info)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [transposed, stepped], ids=lambda f: f.__name__)
@pytest.mark.parametrize("info", [info for info in WITH_ROWS if info.noncontig], ids=lambda info: info.name)
def test_a_row_in_another_layout(info: OpInfo, layout: Layout) -> None:
    compare_rows(info, layout)


# --- columns --------------------------------------------------------------------------------------------------------
def along_the_first_dim(sample: Sample) -> bool:
    """A call on a matrix with 0 or [0] for its dim: every column is a result of its own."""
    shape = next(sample.specs(), Spec(())).shape
    matrix = len(shape) == 2 and min(shape) > 1
    return matrix and any(repr(d) in ("0", "[0]") for d in (*sample.args, sample.kwargs.get("dim")))


IN_COLUMNS = [
    (info, samples)
    for info in WITH_ROWS
    if (samples := [sample for sample in (*info.samples, *info.big) if along_the_first_dim(sample)])
]


@pytest.mark.parametrize(("info", "samples"), IN_COLUMNS, ids=[info.name for info, _ in IN_COLUMNS])
def test_a_column_does_not_depend_on_its_neighbours(info: OpInfo, samples: list[Sample]) -> None:
    for name, call in calls(info, samples, dtypes_of(info)):
        shapes = [f.array.shape for f in leaves((call.args, call.kwargs), Filled)]
        columns, have = shapes[0][-1], [shape[-1:] == shapes[0][-1:] for shape in shapes]
        batch = outputs(run(info, *call.tensors()))
        for k in [k for k in ROWS if k < columns]:
            alone = outputs(run(info, *first(call, have, k, axis=-1).tensors()))
            assert [bits(t) for t in alone] == [bits(t[..., :k]) for t in batch], f"{k} of {columns} columns: {name}"
