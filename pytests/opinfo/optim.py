"""Optimizer steps, which write to their arguments, and passes over all gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .core import A, E, S, Sample, Spec, T, op

Arrays = list[np.ndarray]
SHAPES = ((3, 4), (5,), (), (0, 3))
BIG = ((300, 401), (7,), (90_001,))
ROWS = ((37, 129), (37,))


def tensors(shapes: tuple[tuple[int, ...], ...], lo: float = -2.0) -> list[Spec]:
    return [T(*shape, lo=lo, grad=False) for shape in shapes]


def adam(
    params: Arrays, grads: Arrays, means: Arrays, squares: Arrays, largest: Arrays, masters: Any, steps: Any,
    lr: float, scale: float, *, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool,
    maximize: bool,
) -> Arrays:  # fmt: skip
    done: tuple[Arrays, ...] = ([], [], [], [])
    for i, (p, g, m, v) in enumerate(zip(params, grads, means, squares, strict=True)):
        g = g * (-scale if maximize else scale)
        if decoupled:
            p = p * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * p
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        top = np.maximum(largest[i], v) if largest else v
        root = np.sqrt(top) / np.sqrt(1 - beta2 ** steps[i])
        p = p - lr / (1 - beta1 ** steps[i]) * m / (root + eps)
        for found, value in zip(done, (p, m, v, top), strict=True):
            found.append(value)
    return [value for found in done[: 4 if largest else 3] for value in found]


ADAM = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1, "decoupled": True, "maximize": False}


def adam_sample(shapes: tuple[tuple[int, ...], ...], amsgrad: bool = False, **options: Any) -> Sample:
    largest = tensors(shapes, 0.1) if amsgrad else []
    states = tensors(shapes), tensors(shapes, 0.1), largest
    steps = [A(1 + i % 3) for i in range(len(shapes))]
    return S(tensors(shapes), tensors(shapes), *states, [], steps, 0.05, 0.5, **{**ADAM, **options})


op(
    "_adam_step", adam, adam_sample(SHAPES), adam_sample(SHAPES, decoupled=False), adam_sample(SHAPES, amsgrad=True),
    adam_sample(SHAPES, maximize=True), adam_sample(()),
    errors=[
        E(TypeError, "'exp_avgs' has 0 tensors, 'params' 1",
          [T(3)], [T(3)], [], [], [], [], [], 0.1, 1.0, **ADAM),
        E(TypeError, "'grads' must be a list of Tensors, but one of them is of type NoneType",
          [T(3)], [None], [T(3)], [T(3)], [], [], [A(1)], 0.1, 1.0, **ADAM),
        E(RuntimeError, "gradient 0 has shape .*2.*, its parameter .*3",
          [T(3)], [T(2)], [T(3)], [T(3)], [], [], [A(1)], 0.1, 1.0, **ADAM),
        E(TypeError, "exp_avg_sq 0 must be float32, got float64",
          [T(3)], [T(3)], [T(3)], [T(3, dtype="float64")], [], [], [A(1)], 0.1, 1.0, **ADAM),
        E(TypeError, "max_exp_avg_sq 1 is None", [T(3), T(3)], [T(3), T(3)], [T(3), T(3)], [T(3), T(3)],
          [T(3), None], [], [A(1), A(1)], 0.1, 1.0, **ADAM),
        E(RuntimeError, "lr must be one number",
          [T(3)], [T(3)], [T(3)], [T(3)], [], [], [A(1)], T(2), 1.0, **ADAM),
        E(RuntimeError, "parameter 0 has dtype int64; only floating point",
          [A([1])], [A([1])], [A([1])], [A([1])], [], [], [A(1)], 0.1, 1.0, **ADAM),
    ],
    grad=False, tol=4, low_tol=2, big=[adam_sample(BIG, amsgrad=True)], rows=[adam_sample(ROWS)],
)  # fmt: skip


def sgd(
    params: Arrays, grads: Arrays, sums: Arrays, masters: Any, lr: float, scale: float, *, momentum: float,
    dampening: float, weight_decay: float, nesterov: bool, first: bool, maximize: bool,
) -> Arrays:  # fmt: skip
    done: tuple[Arrays, ...] = ([], [])
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        g = g * (-scale if maximize else scale) + weight_decay * p
        if momentum:
            total = g if first else momentum * sums[i] + (1 - dampening) * g
            done[1].append(total)
            g = g + momentum * total if nesterov else total
        done[0].append(p - lr * g)
    return done[0] + done[1]


SGD = {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1, "nesterov": False, "first": False, "maximize": False}


def sgd_sample(shapes: tuple[tuple[int, ...], ...], **options: Any) -> Sample:
    sums = tensors(shapes) if options.get("momentum", 1) else []
    return S(tensors(shapes), tensors(shapes), sums, [], 0.05, 0.5, **{**SGD, **options})


op(
    "_sgd_step", sgd, sgd_sample(SHAPES), sgd_sample(SHAPES, first=True),
    sgd_sample(SHAPES, nesterov=True, dampening=0.0), sgd_sample(SHAPES, momentum=0.0, maximize=True), sgd_sample(()),
    errors=[
        E(TypeError, "momentum buffer 0 is None", [T(3)], [T(3)], [], [], 0.1, 1.0, **SGD),
        E(TypeError, "'grads' has 2 tensors, 'params' 1", [T(3)], [T(3), T(3)], [], [], 0.1, 1.0, **SGD),
    ],
    grad=False, tol=4, low_tol=2, big=[sgd_sample(BIG)], rows=[sgd_sample(ROWS)],
)  # fmt: skip


def counted(gradients: Arrays) -> Arrays:
    found = [g for g in gradients if g is not None]
    return [np.array(sum(int(test(g).sum()) for g in found)) for test in (np.isinf, np.isnan)]


BROKEN = A([1.0, np.inf, -np.inf, np.nan, 0.5])
op(
    "_unscale", lambda gradients, factor: [*(g * factor for g in gradients), *counted(gradients)],
    S(tensors(SHAPES), 0.25), S([BROKEN, T(3)], 0.5), S([], 2.0),
    errors=[E(TypeError, "gradients must be float32.*got deepseek.int64", [A([1])], 0.5),
            E(RuntimeError, "factor must be one number", [T(3)], T(2))],
    grad=False, out="", big=[S(tensors(BIG), 0.25)], no_rows="what is not finite is counted in all of them",
)  # fmt: skip
op(
    "_count_nonfinite", counted, S(tensors(SHAPES)), S([BROKEN, None, T(3)]), S([]), out="int64",
    errors=[E(TypeError, "gradients must be float32.*got deepseek.int64", [A([1])])],
    grad=False, big=[S(tensors(BIG))], no_rows="it counts in all of them",
)  # fmt: skip
op(
    "_sum_squares", lambda values: np.array(sum(float((v * v).sum()) for v in values)), S(tensors(SHAPES)), S([]),
    out="float64", low=(), grad=False, big=[S(tensors(BIG))], no_rows="it sums over all of them", tol=2,
)  # fmt: skip


# --- the classes of deepseek.optim: options to try, and a parameter after steps with these gradients
def sgd_steps(p: np.ndarray, grads: Arrays, o: dict[str, Any]) -> np.ndarray:
    total = np.zeros_like(p)
    names = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
    for t, g in enumerate(grads):
        p, *rest = sgd([p], [g], [total], [], o["lr"], 1.0, first=t == 0, **{name: o[name] for name in names})
        total = rest[0] if rest else total
    return p


def adam_steps(decoupled: bool) -> Callable[[np.ndarray, Arrays, dict[str, Any]], np.ndarray]:
    def steps(p: np.ndarray, grads: Arrays, o: dict[str, Any]) -> np.ndarray:
        m, v, top = np.zeros_like(p), np.zeros_like(p), [np.zeros_like(p)] if o["amsgrad"] else []
        options = {name: o[name] for name in ("eps", "weight_decay", "maximize")}
        betas = {"beta1": o["betas"][0], "beta2": o["betas"][1]}
        for t, g in enumerate(grads, 1):
            p, m, v, *top = adam(
                [p], [g], [m], [v], top, [], [t], o["lr"], 1.0, decoupled=decoupled, **options, **betas
            )
        return p

    return steps


SGD_OPTIONS = [
    {"lr": 0.1, "momentum": m, "dampening": d, "weight_decay": w, "nesterov": n, "maximize": x}
    for m, d, w, n, x in itertools.product((0, 0.9), (0, 0.5), (0, 0.1), (False, True), (False, True))
    if not (n and (m == 0 or d))
]
ADAM_OPTIONS = [
    {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": w, "amsgrad": a, "maximize": x}
    for w, a, x in itertools.product((0, 0.1), (False, True), (False, True))
]
CLASSES: dict[str, tuple[list[dict[str, Any]], Callable[..., np.ndarray]]] = {
    "SGD": (SGD_OPTIONS, sgd_steps),
    "Adam": (ADAM_OPTIONS, adam_steps(decoupled=False)),
    "AdamW": (ADAM_OPTIONS, adam_steps(decoupled=True)),
}
