"""Ops of torch's database under autocast, tensors in random dtypes: what torch computes, we compute, in its dtype.

What torch refuses may be taken here: our functions promote in places where torch wants one dtype.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
import warnings
from typing import Any

import deepseek
import pytest
from generators.cases import cases
from op_database import SHARED, is_random
from sample_runner import describe
from torch_bridge import DTYPES, Translation, Unsupported, back, map_tensors, tensors

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Relative to the largest number of the result: the packages round products, norms and sums at different places.
TOLERANCE = {torch.bfloat16: 0.06, torch.float16: 0.01, torch.float32: 1e-3, torch.float64: 1e-5}
NAMES = sorted(
    name
    for name, op in SHARED.items()
    if torch.float32 in op.dtypes and not name.startswith(("empty", "new_empty", "resize"))
)
# Where values depend on how close numbers are, or no two calls give the same.
VALUES_VARY = ("sort", "argsort", "topk", "kthvalue", "median", "mode", "unique", "nn.functional.dropout", "isclose")
# What differs for a known reason: found in the text of the difference, and the reason.
KNOWN = (
    (r"norm\|nuc|linalg\.(matrix_)?norm.*NotImplementedError", "there are no singular values yet"),
    (r"binary_cross_entropy_with_logits.*float64.* for torch's", "torch gives the target's dtype, we promote"),
    (r"linear_cross_entropy\|chunked", "torch's chunks are not under autocast, its other forms are"),
    (r"linear_cross_entropy .*float64.* for torch's", "a float64 target beside a narrower input"),
    (r"pad\|reflect .* for torch's", "torch widens padding by reflection in one and two dims, but not in three"),
)


@functools.cache
def samples(name: str) -> list[Any]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(itertools.islice(SHARED[name].sample_inputs("cpu", torch.float32, requires_grad=False), 40))


def one(number: int) -> str | None:
    """None: nothing to compare."""
    rng = random.Random(number)
    name = rng.choice(NAMES)
    op = SHARED[name]
    found = samples(name)
    if not found:
        return None
    sample = rng.choice(found)
    pool = rng.choice((FLOATS[:3], FLOATS, (rng.choice(FLOATS),), (torch.float32, torch.bfloat16)))
    mode = rng.choice(("bfloat16", "float16"))

    def recast(x: Any) -> Any:
        return x.to(rng.choice(pool)) if isinstance(x, torch.Tensor) and x.is_floating_point() else x

    sample = type(sample)(
        recast(sample.input) if isinstance(sample.input, torch.Tensor) else map_tensors(recast, sample.input),
        args=map_tensors(recast, sample.args),
        kwargs=map_tensors(recast, sample.kwargs),
    )
    translate = Translation()
    try:
        args, kwargs = translate((sample.input, *sample.args)), translate.kwargs(sample.kwargs)
    except Unsupported:
        return None
    try:
        with torch.autocast("cpu", dtype=getattr(torch, mode)):
            theirs = op.op(sample.input, *sample.args, **sample.kwargs)
    except Exception:
        return None
    where = f"case {number}: {name} under {mode} {describe(sample)}"
    try:
        with deepseek.autocast("cpu", dtype=getattr(deepseek, mode)):
            ours = deepseek_function(name)(*args, **kwargs)
    except Exception as error:
        return f"{where}: {type(error).__name__}: {str(error)[:150]}"
    for a, b in zip(tensors(ours), tensors(theirs), strict=True):
        if DTYPES.get(b.dtype) is not a.dtype:
            return f"{where}: {a.dtype} for torch's {b.dtype}"
        if is_random(op, sample) or name.split("|")[0] in VALUES_VARY or not b.is_floating_point() or not b.numel():
            continue
        x, y = back(a).double(), b.double()
        kept = y.isfinite() & x.isfinite()
        if not kept.any():
            continue
        largest, error = float(y[kept].abs().max()), float((x - y)[kept].abs().max())
        limit = max(TOLERANCE[t] for t in (*pool, getattr(torch, mode))) * max(1.0, largest)
        if error > limit:
            return f"{where}: off by {error:.3g}, allowed {limit:.3g}"
    return ""


@functools.cache
def deepseek_function(name: str) -> Any:
    from op_database import ours

    return ours(SHARED[name])


def test_random_calls() -> None:
    compared, wrong = 0, []
    for number in cases(300):
        text = one(number)
        compared += text is not None
        if text and not any(re.search(pattern, text) for pattern, _ in KNOWN):
            wrong.append(text)
    assert not wrong, f"{len(wrong)} of {compared} differ:\n" + "\n".join(wrong[:40])
    assert compared > 0
