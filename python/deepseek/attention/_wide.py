"""Parameters that stay float32 in a module of 16 bits, as the checkpoints keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from deepseek import Tensor
from deepseek.nn.modules import RMSNorm
from deepseek.nn.modules.module import Module


class WideParameters(Module):
    """A module whose own parameters, not those of its children, keep at least 32 bits in ``to()`` and its like."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def wide(t: Tensor) -> Tensor:
            new = fn(t)
            return t if new.is_floating_point() and new.element_size() < 4 <= t.element_size() else new

        if recurse:
            for child in self.children():
                child._apply(fn)
        return super()._apply(wide, recurse=False)


class WideRMSNorm(WideParameters, RMSNorm):
    """RMSNorm with such a weight; the result has the input's dtype."""
