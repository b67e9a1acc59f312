"""Data sets, samplers, collation and the loader."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.utils import data as d
from hypothesis import given
from hypothesis import strategies as st


class Squares(d.Dataset[int]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, index: int) -> int:
        return index * index

    def __len__(self) -> int:
        return self.size


class Stream(d.IterableDataset[int]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))

    def __len__(self) -> int:
        return self.size


def seeded(seed: int = 0) -> Any:
    return deepseek.Generator().manual_seed(seed)


def flat(loader: Any) -> list[Any]:
    return [value for batch in loader for value in batch.tolist()]


# --- data sets
def test_datasets() -> None:
    pairs = d.TensorDataset(deepseek.arange(6).reshape(3, 2), deepseek.tensor([7, 8, 9]))
    x, y = pairs[1]
    assert len(pairs) == 3 and x.tolist() == [2, 3] and y.item() == 8
    both = Squares(3) + Squares(2)
    assert [both[i] for i in range(5)] == [0, 1, 4, 0, 1] and both[-1] == 1 and len(both) == 5
    with pytest.raises(IndexError, match="out of range"):
        both[5]
    part = d.Subset(Squares(10), [7, 3])
    assert [part[0], part[1]] == [49, 9] and len(part) == 2
    assert d.Subset(pairs, [2, 0])[[0, 1]][1].tolist() == [9, 7]
    assert list(Stream(2) + Stream(3)) == [0, 1, 0, 1, 2] and len(Stream(2) + Stream(3)) == 5
    with pytest.raises(ValueError, match=r"Size mismatch between tensors: the first dimensions are \[2, 3\]"):
        d.TensorDataset(deepseek.ones(2), deepseek.ones(3))
    with pytest.raises(NotImplementedError, match="__getitem__"):
        d.Dataset()[0]
    with pytest.raises(TypeError, match="ChainDataset"):
        d.ConcatDataset([Stream(1)])


@given(st.integers(2, 60), st.integers(1, 4), st.integers(0, 99))
def test_random_split_is_a_partition(size: int, parts: int, seed: int) -> None:
    cuts = sorted(np.random.default_rng(seed).integers(0, size + 1, parts - 1).tolist())
    lengths = [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    split = d.random_split(Squares(size), lengths, seeded(seed))
    assert [len(s) for s in split] == lengths
    assert sorted(i for s in split for i in s.indices) == list(range(size))
    again = d.random_split(Squares(size), lengths, seeded(seed))
    assert [s.indices for s in split] == [s.indices for s in again]


def test_random_split_by_fractions() -> None:
    assert [len(s) for s in d.random_split(Squares(10), [0.5, 0.25, 0.25])] == [6, 2, 2]
    assert [len(s) for s in d.random_split(Squares(11), [0.9, 0.1])] == [10, 1]
    orders = {tuple(d.random_split(Squares(20), [1.0], seeded(seed))[0].indices) for seed in range(5)}
    assert len(orders) == 5
    with pytest.raises(ValueError, match="9 != 10"):
        d.random_split(Squares(10), [4, 5])
    with pytest.raises(ValueError, match="Fraction at index 0"):
        d.random_split(Squares(10), [1.5, -0.5])
    with pytest.warns(UserWarning, match="split at index 1 is 0"):
        d.random_split(Squares(2), [0.9, 0.05, 0.05])


# --- samplers
def test_samplers() -> None:
    assert list(d.SequentialSampler(Squares(3))) == [0, 1, 2]
    order = list(d.RandomSampler(Squares(50), generator=seeded()))
    assert sorted(order) == list(range(50)) and order != list(range(50))
    assert len(list(d.RandomSampler(Squares(4), num_samples=10))) == 10
    two = list(d.RandomSampler(Squares(4), num_samples=8))
    assert sorted(two[:4]) == sorted(two[4:]) == [0, 1, 2, 3]
    drawn = list(d.RandomSampler(Squares(4), replacement=True, num_samples=200, generator=seeded()))
    assert set(drawn) == {0, 1, 2, 3} and len(drawn) == 200
    assert sorted(d.SubsetRandomSampler([5, 7, 9])) == [5, 7, 9]
    for size, batch, drop in [(10, 3, False), (10, 3, True), (9, 3, True), (2, 3, True), (0, 3, False)]:
        batches = d.BatchSampler(range(size), batch, drop)
        found = list(batches)
        assert len(found) == len(batches) and [i for b in found for i in b] == list(
            range(size - size % batch if drop else size)
        )
    with pytest.raises(ValueError, match="num_samples=0"):
        d.RandomSampler(Squares(0))
    with pytest.raises(TypeError, match="replacement=1"):
        d.RandomSampler(Squares(3), replacement=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size=0"):
        d.BatchSampler(range(3), 0, False)


# --- collation
Point = namedtuple("Point", "x y")


def test_collate() -> None:
    batch = d.default_collate(
        [
            {"t": deepseek.ones(2), "n": 1, "f": 0.5, "s": "a", "p": Point(1, [2.0]), "a": np.float32(3), "b": True},
            {"t": deepseek.zeros(2), "n": 2, "f": 1.5, "s": "b", "p": Point(3, [4.0]), "a": np.float32(4), "b": False},
        ]
    )
    assert batch["t"].tolist() == [[1.0, 1.0], [0.0, 0.0]] and batch["s"] == ["a", "b"]
    assert batch["n"].dtype == deepseek.int64 and batch["n"].tolist() == [1, 2]
    assert batch["f"].dtype == deepseek.float64 and batch["f"].tolist() == [0.5, 1.5]
    assert isinstance(batch["p"], Point) and batch["p"].x.tolist() == [1, 3] and batch["p"].y[0].tolist() == [2.0, 4.0]
    assert batch["a"].dtype == deepseek.float32 and batch["b"].dtype == deepseek.bool
    arrays = d.default_collate([np.zeros((2, 2), np.int32), np.ones((2, 2), np.int32)])
    assert arrays.shape == (2, 2, 2) and arrays.dtype == deepseek.int32
    pair = d.default_collate([(1, 2), (3, 4)])
    assert isinstance(pair, tuple) and [t.tolist() for t in pair] == [[1, 3], [2, 4]]
    with pytest.raises(RuntimeError, match="equal size"):
        d.default_collate([[1], [1, 2]])
    with pytest.raises(TypeError, match="found object"):
        d.default_collate([object()])
    with pytest.raises(TypeError, match="cannot become a tensor"):
        d.default_collate([np.array(["a"])])


# --- loader
def test_batches() -> None:
    loader = d.DataLoader(Squares(5), batch_size=2)
    assert [b.tolist() for b in loader] == [[0, 1], [4, 9], [16]] and len(loader) == 3
    dropped = d.DataLoader(Squares(5), batch_size=2, drop_last=True)
    assert [b.tolist() for b in dropped] == [[0, 1], [4, 9]] and len(dropped) == 2
    assert [b.tolist() for b in d.DataLoader(Squares(2))] == [[0], [1]]
    single = d.DataLoader(Squares(3), batch_size=None)
    assert list(single) == [0, 1, 4] and len(single) == 3
    assert list(d.DataLoader(Squares(4), 2, collate_fn=sum)) == [1, 13]
    assert flat(d.DataLoader([3, 1, 2], 2)) == [3, 1, 2]
    x, y = next(iter(d.DataLoader(d.TensorDataset(deepseek.ones(4, 2), deepseek.arange(4)), batch_size=3)))
    assert x.shape == (3, 2) and y.tolist() == [0, 1, 2]


def test_shuffle() -> None:
    loader = d.DataLoader(Squares(40), 7, shuffle=True, generator=seeded(1))
    first, second = flat(loader), flat(loader)
    assert sorted(first) == sorted(second) == [i * i for i in range(40)] and first != second
    assert flat(d.DataLoader(Squares(40), 7, shuffle=True, generator=seeded(1))) == first
    deepseek.manual_seed(3)
    one = flat(d.DataLoader(Squares(40), 7, shuffle=True))
    deepseek.manual_seed(3)
    assert flat(d.DataLoader(Squares(40), 7, shuffle=True)) == one


def test_samplers_in_the_loader() -> None:
    assert flat(d.DataLoader(Squares(9), 2, sampler=[3, 1, 2])) == [9, 1, 4]
    loader = d.DataLoader(Squares(9), batch_sampler=[[1, 2], [3]])
    assert [b.tolist() for b in loader] == [[1, 4], [9]] and len(loader) == 2 and loader.batch_size is None
    part = d.random_split(Squares(10), [6, 4], seeded())[0]
    assert sorted(flat(d.DataLoader(part, 4))) == sorted(i * i for i in part.indices)


def test_stream() -> None:
    loader = d.DataLoader(Stream(5), 2)
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3], [4]] and len(loader) == 3
    assert [b.tolist() for b in d.DataLoader(Stream(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(d.DataLoader(Stream(3), None)) == [0, 1, 2]


def test_whole_batches_are_fetched_at_once() -> None:
    class Counted(Squares):
        calls = 0

        def __getitems__(self, indices: list[int]) -> list[int]:
            Counted.calls += 1
            return [i + 100 for i in indices]

    assert flat(d.DataLoader(Counted(5), 2)) == [100, 101, 102, 103, 104] and Counted.calls == 3
    assert flat(d.DataLoader(d.Subset(Counted(9), [8, 1]), 2)) == [108, 101]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: d.DataLoader(Squares(3), persistent_workers=True), ValueError, "persistent_workers option needs"),
        (lambda: d.DataLoader(Squares(3), num_workers=-1), ValueError, "num_workers option should be non-negative"),
        (lambda: d.DataLoader(Squares(3), timeout=-1), ValueError, "timeout option should be non-negative"),
        (lambda: d.DataLoader(Squares(3), prefetch_factor=2), ValueError, "prefetch_factor option could only"),
        (lambda: d.DataLoader(Squares(3), multiprocessing_context="fork"), ValueError, "num_workers=0"),
        (lambda: d.DataLoader(Squares(3), shuffle=True, sampler=[1]), ValueError, "exclusive with shuffle"),
        (lambda: d.DataLoader(Squares(3), 2, batch_sampler=[[1]]), ValueError, "batch_sampler option is mutually"),
        (lambda: d.DataLoader(Squares(3), None, drop_last=True), ValueError, "batch_size=None"),
        (lambda: d.DataLoader(Squares(3), 0), ValueError, "batch_size=0"),
        (lambda: d.DataLoader(Stream(3), shuffle=True), ValueError, "shuffle=True"),
        (lambda: d.DataLoader(Stream(3), sampler=[1]), ValueError, "unspecified sampler option"),
        (lambda: d.Dataloader, AttributeError, "nearest name is 'DataLoader'"),
    ],
)
def test_mistakes(make: Callable[[], Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_loader_trains_a_line() -> None:
    from deepseek import nn, optim

    deepseek.manual_seed(0)
    x = deepseek.rand(64, 1)
    loader = d.DataLoader(d.TensorDataset(x, 3 * x + 1), batch_size=16, shuffle=True)
    model = nn.Linear(1, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    loss = deepseek.tensor(math.inf)
    for _ in range(60):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
    assert loss.item() < 1e-4 and abs(model.weight.item() - 3) < 0.1
