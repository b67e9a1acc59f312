"""What indexers share that learn to predict the attention they select for."""

from __future__ import annotations

from typing import Any

import deepseek
from deepseek import Tensor
from deepseek._binding.public import public
from deepseek.nn.modules.module import Module


class LearnsSelection(Module):
    """An indexer with a stage and a loss of its own.

    To train it, set ``stage``: ``"dense"`` while the module attends to all keys (warm-up), ``"sparse"`` while it
    attends to the selected ones. The module then hands over its attention, and ``loss`` is the mean over the queries of
    the module's last forward, to be added to the model's loss or minimised alone.
    """

    _stage: str | None = None
    _losses: tuple[Tensor, ...] = ()  # of the module's last forward: sums over queries
    _learned: int = 0  # queries they are of

    @property
    def stage(self) -> str | None:
        """``"dense"``, ``"sparse"``, or None: it does not learn."""
        return self._stage

    @stage.setter
    def stage(self, stage: str | None) -> None:
        if stage not in (None, "dense", "sparse"):
            raise ValueError(f"the stage of an indexer is 'dense', 'sparse' or None, got {stage!r}")
        self._stage = stage

    @property
    def learns(self) -> bool:
        """Whether a module should hand over its attention: in training, with a stage set and gradients recorded."""
        return self.training and self._stage is not None and deepseek.is_grad_enabled()

    @property
    def loss(self) -> Tensor | None:
        """Mean over the queries of the module's last forward, None where it handed over nothing."""
        if not self._losses:
            return None
        total = self._losses[0]
        for one in self._losses[1:]:
            total = total + one
        return total / self._learned

    def forget_loss(self) -> None:
        """Starts a forward of the module: what was handed over before does not count."""
        self._losses, self._learned = (), 0

    def _add_loss(self, total: Tensor, queries: int) -> None:
        self._losses, self._learned = (*self._losses, total), self._learned + queries

    def __getstate__(self) -> dict[str, Any]:
        """Without the loss, which belongs to a graph."""
        return self.__dict__ | {"_losses": (), "_learned": 0}


@public
def set_indexer_stage(model: Module, stage: str | None) -> int:
    """Sets ``stage`` of all indexers in a model: ``"dense"`` for the warm-up, then ``"sparse"``; None ends it.

    Returns:
        How many there are.
    """
    indexers = [m for m in model.modules() if isinstance(m, LearnsSelection)]
    for one in indexers:
        one.stage = stage
    return len(indexers)


@public
def sum_of_indexer_losses(model: Module) -> Tensor | None:
    """The losses of all indexers in a model from its last forward, None where none learns.

    Its gradients reach the indexers alone, so it may be added to the model's loss as it is.
    """
    losses = [m.loss for m in model.modules() if isinstance(m, LearnsSelection)]
    found = [loss for loss in losses if loss is not None]
    return deepseek.stack(found).sum() if found else None
