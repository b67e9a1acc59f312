"""PyTorch's tensors taken as data, and what ``load_state_dict`` says beside PyTorch's."""

from __future__ import annotations

import random
from typing import Any

import deepseek
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
