"""PyTorch's tensors taken as data, and what ``load_state_dict`` says beside PyTorch's."""

from __future__ import annotations

import random
from typing import Any

import deepseek
import numpy as np
import pytest
import torch
from generators.cases import cases

FLOATS = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"]
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", *FLOATS]


def random_tensor(rng: random.Random) -> Any:
    """Any dtype, shape, strides, offset, gradient, sign bit."""
    shape = [rng.randint(0, 4) for _ in range(rng.randint(0, 4))]
    dtype = getattr(torch, rng.choice(DTYPES))
    x = torch.randint(0, 2 if dtype == torch.bool else 100, shape).to(dtype)
    if x.dim() and rng.random() < 0.5:
        x = x.permute(rng.sample(range(x.dim()), x.dim()))
    if x.dim() and rng.random() < 0.4:
        x = x[:: rng.randint(1, 3)]
    if x.dim() and x.shape[0] and rng.random() < 0.3:
        x = x[rng.randrange(x.shape[0])]
    if rng.random() < 0.2:
        x = x.expand(3, *x.shape)
    if dtype.is_floating_point and rng.random() < 0.4:
        x = torch.nn.Parameter(x) if rng.random() < 0.5 else x.detach().requires_grad_()
    if dtype in (torch.float32, torch.float64) and not x.requires_grad and rng.random() < 0.3:
        x = torch._neg_view(x)
    return x


def test_tensors_of_every_kind() -> None:
    for case in cases(300):
        torch.manual_seed(case)
        x = random_tensor(random.Random(case))
        plain = x.detach().resolve_neg()
        for make in (deepseek.tensor, deepseek.as_tensor, deepseek.asarray, deepseek.from_torch):
            found = make(x)
            assert str(found.dtype).split(".")[1] == str(x.dtype).split(".")[1], f"case {case}"
            assert tuple(found.shape) == tuple(x.shape) and not found.requires_grad, f"case {case}"
            assert found.tolist() == plain.tolist(), f"case {case}"
            if make is not deepseek.tensor and x.numel() and not x.is_neg():
                assert found.data_ptr() == x.data_ptr(), f"case {case}"
        if not x.requires_grad:
            assert deepseek.from_dlpack(x).tolist() == plain.tolist()


def test_lists_of_them() -> None:
    assert deepseek.tensor([torch.ones(2), torch.zeros(2)]).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert deepseek.tensor([torch.tensor(1.0), 2.0]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("make", [lambda: torch.ones(2, dtype=torch.complex64), lambda: torch.eye(2).to_sparse()])
def test_what_has_no_counterpart(make: Any) -> None:
    with pytest.raises(BufferError):
        deepseek.tensor(make())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_modules_state_is_taken_as_it_is(dtype: str) -> None:
    def build(library: Any) -> Any:
        nn = library.nn
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        return nn.Sequential(nn.Linear(4, 8), layer, nn.LayerNorm(8)).to(getattr(library, dtype))

    theirs, ours = build(torch), build(deepseek)
    assert not ours.load_state_dict(theirs.state_dict()).missing_keys
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other and p.tolist() == q.tolist()


def broken(library: Any, rng: random.Random) -> tuple[Any, dict[Any, Any]]:
    """A model and a state dict with mistakes: missing, unexpected, misshapen, renamed, no tensors."""
    nn = library.nn
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), nn.Embedding(4, 3))
    state = dict(model.state_dict())
    for _ in range(rng.randint(1, 4)):
        kind, name = rng.choice(["missing", "unexpected", "shape", "prefix", "number"]), rng.choice(list(state))
        if kind == "missing":
            del state[name]
        elif kind == "unexpected":
            extra = rng.choice(["extra", "0.more", "1.0.weight.x", "1.1.running_mean", "9.weight", "2"])
            state[extra] = library.ones(1)
        elif kind == "shape":
            state[name] = library.ones(rng.choice([(5,), (2, 3, 1), ()]))
        elif kind == "prefix":
            state = {f"module.{key}" if rng.random() < 0.5 else key: value for key, value in state.items()}
        else:
            state[name] = rng.choice([3.5, None, "text"])
        if not state:
            break
    return model, state


def test_the_messages_are_torchs() -> None:
    for case in cases(200):
        texts = []
        for library in (torch, deepseek):
            model, state = broken(library, random.Random(case))
            for strict in (True, False):
                try:
                    texts.append(str(model.load_state_dict(state, strict=strict)).removeprefix("_"))
                except RuntimeError as error:
                    texts.append(str(error).replace("torch.Tensor", "a Tensor").replace("torch.Size", "Size"))
        half = len(texts) // 2
        theirs, ours = texts[:half], [text.replace("deepseek.Size", "Size") for text in texts[half:]]
        assert theirs == ours, f"case {case}"


# --- calls with tensors of both libraries

INDICES = [
    torch.tensor([1]), torch.tensor([[1]]), torch.tensor([True, False, True]), torch.tensor([2, 0]), torch.tensor(1),
    torch.tensor(-1), torch.tensor(True), torch.tensor(False), torch.tensor([1], dtype=torch.int32),
    torch.tensor([], dtype=torch.int64), (torch.tensor([1]),),
    (torch.tensor([0]), 1), (slice(None), torch.tensor([1])), (None, torch.tensor([1])), (..., torch.tensor([0])),
    (torch.tensor([1]), torch.tensor([0])), (torch.tensor(1), torch.tensor([0])), np.array(1), np.array([1]),
    np.array(True), np.int64(1),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indices(index: Any) -> None:
    if isinstance(index, tuple):
        ours, theirs = deepseek.arange(9).view(3, 3), torch.arange(9).view(3, 3)
    else:
        ours, theirs = deepseek.arange(3), torch.arange(3)
    assert tuple(ours[index].shape) == tuple(theirs[index].shape)
    assert ours[index].tolist() == theirs[index].tolist()
    ours[index], theirs[index] = 7, 7
    assert ours.tolist() == theirs.tolist()
    ours[index], theirs[index] = torch.tensor(8), torch.tensor(8)
    assert ours.tolist() == theirs.tolist()


def test_a_float_index_is_refused() -> None:
    for index in (torch.tensor([1.0]), torch.tensor(1.0)):
        with pytest.raises(IndexError, match="must be long, int, byte or bool tensors"):
            deepseek.arange(3)[index]


THEIRS = [
    lambda x: torch.ones(3) + x,
    lambda x: torch.add(torch.ones(3), x),
    lambda x: torch.relu(x),
    lambda x: torch.stack([x]),
    lambda x: torch.einsum("i,i->", x, x),
    lambda x: torch.ones(3).add_(x),
    lambda x: torch.ones(3).copy_(x),
    lambda x: torch.ones(3) == x,
    lambda x: torch.nn.Linear(3, 2)(x),
    lambda x: torch.nn.functional.mse_loss(x, x),
    lambda x: torch.where(torch.ones(3) > 0, x, x),
]


class Named(deepseek.Tensor):
    pass


@pytest.mark.parametrize("kind", [deepseek.Tensor, Named, deepseek.nn.Parameter])
@pytest.mark.parametrize("call", THEIRS)
def test_functions_of_torch_refuse_our_tensors(call: Any, kind: type[deepseek.Tensor]) -> None:
    x = deepseek.ones(3)
    x = deepseek.nn.Parameter(x) if kind is deepseek.nn.Parameter else x.as_subclass(kind)
    with pytest.raises(TypeError) as caught:
        call(x)
    assert not isinstance(caught.value, RecursionError)


OURS = [
    lambda x, y: deepseek.add(x, y),
    lambda x, y: deepseek.where(y > 0, x, x),
    lambda x, y: deepseek.where(x > 0, x, y),
    lambda x, y: x.copy_(y),
    lambda x, y: x.clamp(y),
    lambda x, y: x.fill_(y),
    lambda x, y: x.masked_fill(x > 0, y),
    lambda x, y: deepseek.full((2,), y),
    lambda x, y: deepseek.allclose(x, y),
    lambda x, y: deepseek.nn.functional.mse_loss(x, y),
    lambda x, y: deepseek.optim.SGD([y], lr=0.1),
    lambda x, y: deepseek.optim.SGD([torch.nn.Parameter(y)], lr=0.1),
    lambda x, y: deepseek.nn.Parameter(y),
    lambda x, y: x.backward(y),
    lambda x, y: deepseek.autograd.grad(y, x),
    lambda x, y: deepseek.einsum("i,i->", x, y),
    lambda x, y: deepseek.nn.functional.one_hot(y),
    lambda x, y: x == y,
    lambda x, y: y + x,
    lambda x, y: x.to(y.dtype),
    lambda x, y: deepseek.zeros(2, dtype=y.dtype),
    lambda x, y: deepseek.tensor([1.0], dtype=y.dtype),
]


@pytest.mark.parametrize("value", [[1.0, 1.0, 1.0], [1.0], 1.0])
@pytest.mark.parametrize("call", OURS)
def test_our_functions_name_what_they_refuse(call: Any, value: Any) -> None:
    with pytest.raises(TypeError, match=r"torch\.(Tensor|dtype|nn\.parameter\.Parameter)"):
        call(deepseek.ones(3), torch.tensor(value))


def test_operators_refuse() -> None:
    for value in ([1, 1, 1], [1], 1):
        for call in (lambda x, y: x + y, lambda x, y: y + x, lambda x, y: x < y, lambda x, y: x @ y):
            with pytest.raises(TypeError, match="Tensor"):
                call(deepseek.ones(3), torch.tensor(value))


def test_an_integer_of_theirs_is_a_size() -> None:
    assert tuple(deepseek.zeros(torch.tensor(3), 2).shape) == (3, 2)
    assert deepseek.ones(2, 3).sum(torch.tensor(1)).tolist() == [3.0, 3.0]
