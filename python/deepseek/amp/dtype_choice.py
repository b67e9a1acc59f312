"""``best_dtype``: which dtype matrix products are fastest in on this CPU, measured."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import deepseek
from deepseek import _C
from deepseek._binding.missing import guard
from deepseek.amp.autocast_mode import autocast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deepseek import dtype

__all__ = ["DtypeChoice", "best_dtype"]

# (rows, inputs, outputs): a batch through a wide layer, through a narrow one, and a few rows as in decoding.
_PRODUCTS = ((256, 512, 512), (1024, 64, 256), (16, 512, 1024))
_REPEATS = 9
_GAIN = 1.2  # what a dtype must be faster by to be worth its lost digits: less is noise, or eaten by the casts
_CANDIDATES = (_C.float32, _C.bfloat16, _C.float16)


@dataclass(frozen=True)
class DtypeChoice:
    """What :func:`best_dtype` found. ``print`` it to read why.

    Attributes:
        dtype: the dtype to compute in; float32 where no other is faster.
        speedup: how many times faster each dtype is than float32, by name.
        seconds: what all measured products took together (of the processor), by name of the dtype.
        reason: one sentence.
        isa: the instruction set the kernels use (``DEEPSEEK_ISA`` limits it).
    """

    dtype: dtype
    speedup: Mapping[str, float]
    seconds: Mapping[str, float]
    reason: str
    isa: str

    def autocast(self) -> autocast:
        """``autocast`` in this dtype, switched off where that is float32."""
        lower = self.dtype is not _C.float32
        return autocast("cpu", self.dtype if lower else None, enabled=lower)

    def __str__(self) -> str:
        times = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in self.seconds.items())
        return f"{self.dtype} on {self.isa}: {self.reason} Measured: {times}."


def _measure() -> dict[dtype, float]:
    """Seconds of all products together in each dtype.

    Of the process's own time: a clock on the wall would be about the other programs that run. What these do to the
    speed of a core comes and goes, so dtypes are compared with the run of float32 just before them.
    """
    seconds = dict.fromkeys(_CANDIDATES, 0.0)
    for m, k, n in _PRODUCTS:
        operands = {t: (deepseek.ones(m, k, dtype=t), deepseek.ones(n, k, dtype=t)) for t in _CANDIDATES}
        runs: list[dict[dtype, float]] = []
        for _ in range(_REPEATS):
            runs.append({})
            for t, (x, w) in operands.items():
                begin = time.process_time()
                _C.linear(x, w)
                runs[-1][t] = time.process_time() - begin
        least = min(run[_C.float32] for run in runs)
        for t in _CANDIDATES:
            seconds[t] += least * statistics.median(run[t] / run[_C.float32] for run in runs)
    return seconds


def choose(seconds: Mapping[dtype, float], routes: Mapping[str, str], isa: str) -> DtypeChoice:
    """The choice that the measured seconds lead to. bfloat16 goes before float16: it needs no loss scale."""
    speedup = {t: seconds[_C.float32] / taken for t, taken in seconds.items()}
    bf16, f16 = speedup[_C.bfloat16], speedup[_C.float16]
    if max(bf16, f16) < _GAIN:
        best, reason = (
            _C.float32,
            f"16-bit products are no faster here (bfloat16 {bf16:.2f}x, float16 {f16:.2f}x float32's speed; bfloat16 "
            f"is {routes['bfloat16']}): they save memory, not time.",
        )
    elif bf16 >= _GAIN and f16 < bf16 * _GAIN:
        best, reason = (
            _C.bfloat16,
            f"its products run {bf16:.2f}x as fast as float32's ({routes['bfloat16']}), and it needs no loss scale.",
        )
    else:
        best, reason = (
            _C.float16,
            f"its products run {f16:.2f}x as fast as float32's ({routes['float16']}), bfloat16's {bf16:.2f}x; train "
            "with a GradScaler.",
        )
    names = {t: str(t).removeprefix("deepseek.") for t in seconds}
    return DtypeChoice(
        best,
        {names[t]: gain for t, gain in speedup.items()},
        {names[t]: taken for t, taken in seconds.items()},
        reason,
        isa,
    )


@functools.cache
def _best_dtype() -> DtypeChoice:
    with deepseek.no_grad(), autocast("cpu", enabled=False):
        seconds = _measure()
    about = _C.build_info()
    return choose(seconds, about["matmul"], about["isa"])


def best_dtype() -> DtypeChoice:
    """Which of float32, bfloat16 and float16 matrix products are fastest in on this CPU.

    Measured once a process in some 50 ms, with the threads and the instruction set that are set then (``DEEPSEEK_ISA``
    counts), and kept. A 16-bit dtype has to be 1.2 times as fast as float32 to be chosen; on a CPU without BF16 dot
    products it usually is not.

    Returns:
        :class:`DtypeChoice` with ``dtype``, ``speedup``, ``seconds``, ``reason`` and ``isa``.

    Example::

        with amp.best_dtype().autocast():
            loss = model(x)
    """
    return _best_dtype()


guard(__name__)
