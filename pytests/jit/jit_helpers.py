"""What the tests of ``deepseek.jit`` share."""

from __future__ import annotations

from typing import Any

import deepseek
from deepseek import nn


def rand(*shape: int, grad: bool = False) -> Any:
    return deepseek.randn(*shape, dtype=deepseek.float64, requires_grad=grad)


def recordings(f: Any) -> int:
    return len(f._entries)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.25)
        self.gain = 1.0
        self.calls = 0

    def forward(self, x: Any) -> Any:
        return self.b(self.drop(self.a(x).relu())) * self.gain
