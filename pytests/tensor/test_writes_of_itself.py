"""In-place writes by index whose index, mask or values are the target itself: they are read as they were before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest

N = 30_000  # more than a thread's share
BIG = 10**12


def places() -> Any:
    return deepseek.arange(N).roll(1)


def flags() -> Any:
    return deepseek.arange(N) % 3 == 0


# Each writes to x, reading x.
WRITES: dict[str, Callable[[Any], Any]] = {
    "x[x] = number": lambda x: x.__setitem__(x, BIG),
    "x[x] = values": lambda x: x.__setitem__(x, deepseek.full((N,), -BIG)),
    "x[p] = x": lambda x: x.__setitem__(places().flip(0), x),
    "x[mask] = x[:k]": lambda x: x.__setitem__(flags(), x[: int(flags().sum())]),
    "index_put_": lambda x: x.index_put_((x.detach(),), deepseek.full((N,), BIG)),
    "index_put_ accumulate": lambda x: x.index_put_((x,), x, accumulate=True),
    "index_copy_": lambda x: x.index_copy_(0, x, deepseek.full((N,), BIG)),
    "index_copy_ of itself": lambda x: x.index_copy_(0, places().flip(0), x),
    "index_add_": lambda x: x.index_add_(0, x, x),
    "index_fill_": lambda x: x.index_fill_(0, x, BIG),
    "scatter_ number": lambda x: x.scatter_(0, x, BIG),
    "scatter_": lambda x: x.scatter_(0, x, x.flip(0)),
    "scatter_ of itself": lambda x: x.scatter_(0, places().flip(0), x),
    "scatter_add_": lambda x: x.scatter_add_(0, x, x),
    "masked_scatter_": lambda x: x.masked_scatter_(flags(), x),
}


@pytest.mark.threads
@pytest.mark.parametrize("name", WRITES)
def test_what_is_read_is_the_tensor_before(name: str) -> None:
    write, outcomes = WRITES[name], []
    for threads in (1, 2, 5):
        before = deepseek.get_num_threads()
        deepseek.set_num_threads(threads)
        try:
            x = places()
            write(x)
            outcomes.append(x.numpy().copy())
        finally:
            deepseek.set_num_threads(before)
    expected = np.array(reference(name))
    for got in outcomes:
        np.testing.assert_array_equal(got, expected)
    compiled = deepseek.jit(lambda x: (write(x), x + 0)[1])
    for _ in range(3):
        np.testing.assert_array_equal(compiled(places()).numpy(), expected)


def reference(name: str) -> Any:
    x, old, turned = places().numpy().copy(), places().numpy().copy(), places().flip(0).numpy()
    mask = flags().numpy()
    if name in ("x[x] = number", "index_put_", "index_copy_", "index_fill_", "scatter_ number"):
        x[old] = BIG
    elif name == "x[x] = values":
        x[old] = -BIG
    elif name in ("x[p] = x", "index_copy_ of itself", "scatter_ of itself"):
        x[turned] = old
    elif name == "scatter_":
        x[old] = old[::-1]
    elif name in ("index_put_ accumulate", "index_add_", "scatter_add_"):
        np.add.at(x, old, old)
    else:
        x[mask] = old[: mask.sum()]
    return x


def test_matrices_that_index_themselves() -> None:
    at = deepseek.arange(4).repeat(5, 1)
    x = at.clone()
    x.scatter_(1, x, x + 10)
    np.testing.assert_array_equal(x.numpy(), at.numpy() + 10)
    x = at.int()
    x.index_add_(1, x[0], x)
    np.testing.assert_array_equal(x.numpy(), 2 * at.numpy())
