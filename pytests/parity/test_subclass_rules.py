"""Which class results have when a subclass of Tensor takes part: the same as in torch, and with the same hooks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import deepseek
import deepseek.nn.functional
import pytest

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


class OurBase(deepseek.Tensor):
    """A class that says nothing about ops."""


class OurChild(OurBase):
    """Derived from it."""


class OurOther(deepseek.Tensor):
    """Not related to it."""


class TheirBase(torch.Tensor):
    """torch's counterparts."""


class TheirChild(TheirBase):
    """Derived from it."""


class TheirOther(torch.Tensor):
    """Not related to it."""


CLASSES = {
    deepseek: {"B": OurBase, "C": OurChild, "O": OurOther, "P": deepseek.nn.Parameter, "U": deepseek.nn.Buffer},
    torch: {"B": TheirBase, "C": TheirChild, "O": TheirOther, "P": torch.nn.Parameter, "U": torch.nn.Buffer},
}
NAMES = {cls: name for classes in CLASSES.values() for name, cls in classes.items()}

# Of the library and objects of 2 x 2 of the base class, the class derived from it, an unrelated one, a parameter, a
# buffer, and a plain tensor.
CALLS: dict[str, Callable[..., Any]] = {
    "add number": lambda T, b, c, o, p, u, t: b + 1,
    "number first": lambda T, b, c, o, p, u, t: 2 * b,
    "add plain": lambda T, b, c, o, p, u, t: b + t,
    "plain first": lambda T, b, c, o, p, u, t: t - b,
    "itself": lambda T, b, c, o, p, u, t: b / b,
    "child": lambda T, b, c, o, p, u, t: b @ c,
    "child first": lambda T, b, c, o, p, u, t: c**b,
    "unrelated": lambda T, b, c, o, p, u, t: b + o,
    "unrelated function": lambda T, b, c, o, p, u, t: T.add(o, c),
    "parameter": lambda T, b, c, o, p, u, t: b * p,
    "parameter alone": lambda T, b, c, o, p, u, t: p * 2,
    "parameter's view": lambda T, b, c, o, p, u, t: p[0],
    "parameter's data": lambda T, b, c, o, p, u, t: p.data,
    "parameter's detach": lambda T, b, c, o, p, u, t: p.detach(),
    "parameter zeros_like": lambda T, b, c, o, p, u, t: T.zeros_like(p),
    "buffer": lambda T, b, c, o, p, u, t: u + 1,
    "buffer and base": lambda T, b, c, o, p, u, t: u + b,
    "neg": lambda T, b, c, o, p, u, t: -c,
    "abs": lambda T, b, c, o, p, u, t: abs(c),
    "invert": lambda T, b, c, o, p, u, t: ~(c > 1),
    "compare": lambda T, b, c, o, p, u, t: b == t,
    "compare plain first": lambda T, b, c, o, p, u, t: t < b,
    "in place": lambda T, b, c, o, p, u, t: b.add_(1),
    "in place operator": lambda T, b, c, o, p, u, t: b.__imul__(t),
    "method": lambda T, b, c, o, p, u, t: b.exp(),
    "function": lambda T, b, c, o, p, u, t: T.exp(b),
    "reduction": lambda T, b, c, o, p, u, t: b.sum(),
    "named results": lambda T, b, c, o, p, u, t: tuple(b.max(0)),
    "topk": lambda T, b, c, o, p, u, t: tuple(T.topk(b, 1)),
    "index": lambda T, b, c, o, p, u, t: b[0],
    "slice": lambda T, b, c, o, p, u, t: b[:, 1:],
    "mask": lambda T, b, c, o, p, u, t: b[b > 0],
    "list index": lambda T, b, c, o, p, u, t: b[[1, 0]],
    "view": lambda T, b, c, o, p, u, t: b.view(4),
    "reshape": lambda T, b, c, o, p, u, t: b.reshape(-1),
    "T": lambda T, b, c, o, p, u, t: b.T,
    "mT": lambda T, b, c, o, p, u, t: c.mT,
    "transpose": lambda T, b, c, o, p, u, t: b.transpose(0, 1),
    "permute": lambda T, b, c, o, p, u, t: T.permute(b, (1, 0)),
    "expand": lambda T, b, c, o, p, u, t: b.expand(3, 2, 2),
    "unbind": lambda T, b, c, o, p, u, t: tuple(b.unbind()),
    "chunk": lambda T, b, c, o, p, u, t: tuple(T.chunk(b, 2)),
    "split": lambda T, b, c, o, p, u, t: tuple(b.split(1)),
    "iterate": lambda T, b, c, o, p, u, t: tuple(b),
    "cat": lambda T, b, c, o, p, u, t: T.cat([t, b]),
    "stack": lambda T, b, c, o, p, u, t: T.stack([c, t, b]),
    "einsum": lambda T, b, c, o, p, u, t: T.einsum("ij,jk->ik", b, t),
    "where": lambda T, b, c, o, p, u, t: T.where(t > 0, b, t),
    "where's condition": lambda T, b, c, o, p, u, t: T.where(b > 0, t, t),
    "data": lambda T, b, c, o, p, u, t: b.data,
    "detach": lambda T, b, c, o, p, u, t: b.detach(),
    "clone": lambda T, b, c, o, p, u, t: c.clone(),
    "contiguous": lambda T, b, c, o, p, u, t: b.t().contiguous(),
    "to dtype": lambda T, b, c, o, p, u, t: b.to(T.float64),
    "double": lambda T, b, c, o, p, u, t: b.double(),
    "type": lambda T, b, c, o, p, u, t: c.type(T.float16),
    "zeros_like": lambda T, b, c, o, p, u, t: T.zeros_like(b),
    "rand_like": lambda T, b, c, o, p, u, t: T.rand_like(b),
    "new_zeros": lambda T, b, c, o, p, u, t: b.new_zeros(3),
    "new_ones": lambda T, b, c, o, p, u, t: c.new_ones((3, 1)),
    "new_full": lambda T, b, c, o, p, u, t: b.new_full((2,), 3.0),
    "new_empty": lambda T, b, c, o, p, u, t: b.new_empty(2),
    "new_tensor": lambda T, b, c, o, p, u, t: b.new_tensor([1.0]),
    "parameter's new_zeros": lambda T, b, c, o, p, u, t: p.new_zeros(3),
    "diag_embed": lambda T, b, c, o, p, u, t: T.diag_embed(b),
    "linear": lambda T, b, c, o, p, u, t: T.nn.functional.linear(b, p),
    "linear, weight": lambda T, b, c, o, p, u, t: T.nn.functional.linear(t, b),
    "softmax": lambda T, b, c, o, p, u, t: T.nn.functional.softmax(b, -1),
    "mse_loss": lambda T, b, c, o, p, u, t: T.nn.functional.mse_loss(b, t),
    "tensordot": lambda T, b, c, o, p, u, t: T.tensordot(b, t, 1),
    "copy": lambda T, b, c, o, p, u, t: copy.copy(c),
    "pickle": lambda T, b, c, o, p, u, t: pickle.loads(pickle.dumps(c)),
    "deepcopy of a parameter": lambda T, b, c, o, p, u, t: copy.deepcopy(p),
    "as_subclass": lambda T, b, c, o, p, u, t: t.as_subclass(type(c)),
    "as parent": lambda T, b, c, o, p, u, t: c.as_subclass(type(b)),
    "as plain": lambda T, b, c, o, p, u, t: c.as_subclass(T.Tensor),
    "tensor of it": lambda T, b, c, o, p, u, t: T.tensor(b),
    "grad of a leaf": lambda T, b, c, o, p, u, t: graded(b.detach().requires_grad_()),
    "requires_grad_": lambda T, b, c, o, p, u, t: b.requires_grad_(),
}


def graded(leaf: Any) -> Any:
    (leaf * 2).sum().backward()
    return leaf.grad


def classes_of(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(classes_of(entry) for entry in value)
    return NAMES.get(type(value), type(value).__name__)


def outcome(library: Any, call: Callable[..., Any]) -> Any:
    classes = CLASSES[library]
    plain = library.tensor([[1.0, 2.0], [3.0, 4.0]])
    made = {name: plain.clone().as_subclass(classes[name]) for name in "BCO"}
    p = classes["P"](plain.clone())
    try:
        with library.enable_grad():
            return classes_of(call(library, made["B"], made["C"], made["O"], p, classes["U"](plain.clone()), plain))
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("name", CALLS)
def test_classes_of_results(name: str) -> None:
    assert outcome(deepseek, CALLS[name]) == outcome(torch, CALLS[name])


def test_as_subclass_stays_in_the_graph() -> None:
    for library in (deepseek, torch):
        x = library.ones(2, requires_grad=True)
        y = (x * 3).as_subclass(CLASSES[library]["B"])
        (y * y).sum().backward()
        assert type(y) is CLASSES[library]["B"] and not y.is_leaf and x.grad.tolist() == [18.0, 18.0]


def hooked(library: Any) -> Any:
    """What a class with a hook saw, and what it made of the results."""
    seen: list[str] = []

    class Logged(library.Tensor):  # type: ignore[misc]
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(f"{func.__name__.strip('_')} {sorted(t.__name__ for t in types)}")
            if func.__name__ == "cos":
                return "refused"
            return super().__torch_function__(func, types, args, kwargs)

    x = library.tensor([1.0, 2.0]).as_subclass(Logged)
    seen.clear()  # what making it called
    results = [x + 1, x.exp(), library.cos(x), library.cat([x, x]), library.mul(library.ones(2), x), -x, x[0]]
    kinds = [type(r).__name__ for r in results]
    return seen, kinds


def test_hooks() -> None:
    assert hooked(deepseek) == hooked(torch)
