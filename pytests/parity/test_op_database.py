"""Every op that exists here and in torch's own test database, on torch's samples: see sample_runner.py.

`make parity` runs all of it; `make parity-sample` and CI a fixed sample.
"""

from __future__ import annotations

import pytest
import torch
from known_differences import KNOWN, explanation
from op_database import SHARED
from sample_runner import TOTALS, Runner

REFERENCE_SAMPLES = 400  # of each op and dtype, from torch's larger sets with extreme values


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def check(runner: Runner, whole: bool) -> None:
    explained = {f: explanation(f.op, str(f)) for f in runner.failures}
    unexplained = [f for f, known in explained.items() if known is None]
    TOTALS.add(runner, explained=len(explained) - len(unexplained), failed=len(unexplained))
    shown = "\n".join(str(f) for f in unexplained[:20])
    assert not unexplained, f"{len(unexplained)} of {sum(runner.run.values())} differ from torch:\n{shown}"
    if whole:
        stale = [k for k in KNOWN if k.concerns(runner.name) and k not in explained.values()]
        assert not stale, f"no sample needs this any more, remove it from known_differences.py: {stale}"


@pytest.mark.parametrize("name", SHARED)
def test_fixed_sample(name: str) -> None:
    runner = Runner(name, SHARED[name])
    runner.a_few()
    check(runner, whole=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SHARED)
def test_all_samples(name: str) -> None:
    runner = Runner(name, SHARED[name])
    runner.everything(reference_limit=REFERENCE_SAMPLES)
    check(runner, whole=True)


def test_known_differences_name_ops_that_exist() -> None:
    for known in KNOWN:
        assert any(known.concerns(name) for name in SHARED), f"{known.op}: no such entry"
        assert known.reason
