"""What the state machine for autograd may do: a line each. `p` is the package, the rest its tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": lambda p, a, b: a + b,
    "mul": lambda p, a, b: a * b,
    "div": lambda p, a, b: a / (b * b + 1),
    "sin": lambda p, a, b: a.sin(),
    "tanh": lambda p, a, b: a.tanh(),
    "exp": lambda p, a, b: (-a * a).exp(),
    "pow": lambda p, a, b: a**3,
    "square": lambda p, a, b: a * a,
    "double": lambda p, a, b: a * 2,
    "sum": lambda p, a, b: a.sum(),
    "mean": lambda p, a, b: a.mean(-1),
    "softmax": lambda p, a, b: a.reshape(-1, 1).softmax(0),
    "cumsum": lambda p, a, b: a.cumsum(0),
    "cat": lambda p, a, b: p.cat([a, b]),
    "stack": lambda p, a, b: p.stack([a, a.sin()]),
    "where": lambda p, a, b: p.where(a > 0.1, a, b),
    "matmul": lambda p, a, b: a @ b,
    "gather": lambda p, a, b: a[[0, 0]],
    "constant": lambda p, a, b: (a > 0).double(),
}
SEVERAL: dict[str, Callable[[Any, Any], Any]] = {
    "unbind": lambda p, a: a.unbind(0),
    "split": lambda p, a: a.split(1),
    "chunk": lambda p, a: a.chunk(2, -1) if a.numel() else [a.clone()],  # of nothing: several slices here, one op there
    "topk": lambda p, a: [a.topk(1)[0]],
    "sort": lambda p, a: [a.sort(-1)[0]],
    "max": lambda p, a: [a.max(-1)[0]],
    "meshgrid": lambda p, a: p.meshgrid(a.reshape(-1)[:2], a.reshape(-1)[:3], indexing="ij"),
    "var_mean": lambda p, a: [p.var(a), a.mean()],
}
MODES: dict[str, Callable[[Any], Any]] = {
    "no_grad": lambda p: p.no_grad(),
    "enable_grad": lambda p: p.enable_grad(),
    "set_grad_enabled(True)": lambda p: p.set_grad_enabled(True),
    "set_grad_enabled(False)": lambda p: p.set_grad_enabled(False),
    "inference_mode": lambda p: p.inference_mode(),
    "inference_mode(False)": lambda p: p.inference_mode(False),
}
FLAGS: dict[str, Callable[[Any], Any]] = {
    "detach_": lambda t: t.detach_(),
    "requires_grad_": lambda t: t.requires_grad_(),
    "requires_grad_(False)": lambda t: t.requires_grad_(False),
    "retain_grad": lambda t: t.retain_grad(),
}
GRADS: dict[str, Callable[[Any], Any]] = {
    "None": lambda t: setattr(t, "grad", None),
    "zero_": lambda t: None if t.grad is None else t.grad.zero_() is None,
    "own value": lambda t: setattr(t, "grad", t.detach().clone()),
    "half": lambda t: None if t.grad is None else t.grad.mul_(0.5) is None,
}
HOOKS: dict[str, Callable[[Any], Any]] = {
    "observe": lambda g: None,
    "double": lambda g: g * 2,
    "square": lambda g: g * g,
    "wrong size": lambda g: g.reshape(-1)[:0],
    "wrong dtype": lambda g: g.float(),
    "raise": lambda g: {}["from the hook"],
}
OVERWRITE = frozenset({"copy", "zero", "fill", "set first", "set last"})
CHANGE = frozenset({"double", "square"})


def step(package: Any, t: Any) -> None:
    with package.no_grad():
        if t.grad is not None:
            t.sub_(t.grad.detach() * 0.1)


AFTER: dict[str, Callable[[Any, Any], Any]] = {
    "observe": lambda p, t: None,
    "clear": lambda p, t: setattr(t, "grad", None),
    "step": step,
    "raise": lambda p, t: {}["from the hook"],
}
