"""Checks that every module with a selection passes: `select` gives what queries of an input chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import deepseek
from deepseek import _C
from deepseek.attention import _heads


@contextmanager
def cut_over(threads: int) -> Iterator[None]:
    """Kernels cut all work, however small, over so many threads."""
    before = deepseek.get_num_threads()
    deepseek.set_num_threads(threads)
    _C._set_grain_limit(1)
    try:
        yield
    finally:
        deepseek.set_num_threads(before)
        _C._set_grain_limit(0)


def check_selection_is_a_querys_own(module: Any, x: deepseek.Tensor, monkeypatch: Any) -> None:
    """The same for any number of threads, batch mates and chunks of queries, and nothing that comes later counts."""
    want, out = module.selected_blocks(x), module(x)

    def same(select: Callable[[], deepseek.Tensor]) -> bool:
        return bool((select() == want).all())

    for threads in (1, 2, 3):
        with cut_over(threads):
            assert same(lambda: module.selected_blocks(x)), threads
            assert (module(x) == out).all()
    for scores in (1, 2000, 1 << 40):
        monkeypatch.setattr(_heads, "_SCORES_AT_ONCE", scores)
        assert same(lambda: module.selected_blocks(x)), scores
        assert (module(x) == out).all()
    alone = [module.selected_blocks(x[b : b + 1]) for b in range(x.shape[0])]
    assert same(lambda: deepseek.cat(alone))
    cut = x.shape[1] * 2 // 3
    early = module.selected_blocks(x[:, :cut])
    assert as_sets(early) == as_sets(want[:, :, :cut])


def as_sets(lists: deepseek.Tensor) -> list[Any]:
    """Without the -1, in any order."""
    if lists.dim() == 1:
        return sorted({j for j in lists.tolist() if j >= 0})
    return [as_sets(part) for part in lists.unbind(0)]
