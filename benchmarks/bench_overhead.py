"""What a call costs beyond its arithmetic: tensors of 16 elements, chains of small ops, a step of a tiny network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main


def chain_step(T: Any) -> Callable[[], Any]:
    """Forward and backward through 41 pointwise ops on 16 elements."""
    x = T.ones(16, requires_grad=True)

    def run() -> None:
        y = x
        for _ in range(20):
            y = (y * 0.9) + 0.1
        y.sum().backward()
        x.grad = None

    return run


def mlp_step(T: Any, fused: bool | None = None) -> Callable[[], Any]:
    """One AdamW step of a 16-32-32-1 network on a batch of 32."""
    nn = T.nn
    T.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = T.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    x, y = T.randn(32, 16), T.randn(32, 1)

    def run() -> None:
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def three_ops(T: Any) -> Callable[[], Any]:
    """A call of a compiled function on 16 elements."""
    a, b = T.randn(16), T.randn(16)
    compiled = T.compile(lambda x, y: ((x + y) * 2).relu())
    return lambda: compiled(a, b)


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    a, b = T.randn(16), T.randn(16)
    p = T.randn(16, requires_grad=True)
    m, n = T.randn(4, 4), T.randn(4, 4)
    return {
        "add 16": lambda: lambda: a + b,
        "add 16, recorded": lambda: lambda: p + b,
        "relu 16": lambda: lambda: T.relu(a),
        "sum 16": lambda: lambda: a.sum(),
        "softmax 16": lambda: lambda: T.softmax(a, -1),
        "matmul 4x4": lambda: lambda: m @ n,
        "view 4x4": lambda: lambda: a.view(4, 4),
        "index [2]": lambda: lambda: a[2],
        "41-op chain, forward and backward": lambda: chain_step(T),
        "AdamW step of a tiny MLP": lambda: mlp_step(T),
        "fused AdamW step of a tiny MLP": lambda: mlp_step(T, fused=True),
        "3-op function, compiled": lambda: three_ops(T),
        "AdamW step of a tiny MLP, compiled": lambda: T.compile(mlp_step(T)),
    }


GOALS = {
    "add 16": 4.0,
    "relu 16": 4.0,
    "sum 16": 4.0,
    "softmax 16": 4.0,
    "matmul 4x4": 4.0,
    "view 4x4": 2.0,
    "index [2]": 2.0,
    "41-op chain, forward and backward": 6.0,
    "AdamW step of a tiny MLP": 8.0,
    "fused AdamW step of a tiny MLP": 5.0,
    "3-op function, compiled": 6.0,
    "AdamW step of a tiny MLP, compiled": 10.0,
}

if __name__ == "__main__":
    main("overhead", cases, goals=GOALS.get)
