"""What a task has of its own in a layer of attention: gates, and an adapter of the queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import deepseek
from deepseek import Tensor
from deepseek.attention._heads import check_whole
from deepseek.nn import Linear, ModuleDict, Parameter
from deepseek.nn.modules.module import Module


class TaskParts(Module):
    """What one task has of its own: gates of both branches for each head, and an adapter of the queries."""

    def __init__(
        self, dim: int, heads: int, head_dim: int, gates: bool, rank: int, dtype: deepseek.dtype | None
    ) -> None:
        super().__init__()
        self.gates = Linear(dim, 2 * heads, dtype=dtype) if gates else None
        self.adapt = QueryAdapter(dim, heads * head_dim, rank, dtype) if rank else None


class QueryAdapter(Module):
    """``up(down(x))`` of low rank, zeros at first. (LoRA, Hu et al., 2021)"""

    def __init__(self, dim: int, out: int, rank: int, dtype: deepseek.dtype | None) -> None:
        super().__init__()
        self.down = Linear(dim, rank, bias=False, dtype=dtype)
        self.up = Linear(rank, out, bias=False, dtype=dtype)
        self.up.weight = Parameter(deepseek.zeros_like(self.up.weight))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, dim] -> [batch, time, out]."""
        return cast(Tensor, self.up(self.down(x)))


def check_tasks(name: str, tasks: Sequence[str], gates: bool, rank: int) -> None:
    """Raises ValueError unless there are tasks of different names without dots, with gates or an adapter."""
    if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(f"{name}: a task layer needs tasks, a list of different names, got {tasks!r}")
    check_whole(name, adapter_rank=rank)
    for task in tasks:
        if not isinstance(task, str) or not task or "." in task:
            raise ValueError(f"{name}: a task is named by a string without dots, got {task!r}")
        if hasattr(ModuleDict, task) or task == "training":
            raise ValueError(f"{name}: {task!r} cannot name a task, a module has an attribute of that name")
    if rank < 0 or not (gates or rank):
        raise ValueError(f"{name}: a task needs gates or an adapter_rank above 0, got {gates} and {rank}")
