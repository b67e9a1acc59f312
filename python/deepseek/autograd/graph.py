"""What the tape saves for the backward pass, and hooks that keep it elsewhere or make it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._C import Tensor

__all__ = ["disable_saved_tensors_hooks", "saved_tensors_hooks"]

_why_disabled: ContextVar[str | None] = ContextVar("why_disabled", default=None)


class saved_tensors_hooks:
    """Within it ``pack_hook(tensor)`` says what an op keeps of each tensor that its gradient needs.

    ``unpack_hook`` gets that back when the gradient is computed, and returns the tensor. So saved tensors can go to a
    file, be rounded, or be computed again. Of nested pairs the innermost counts. What the hooks compute themselves is
    not recorded. A tensor that the hooks keep is not checked for writes in place.

    Example::

        with saved_tensors_hooks(lambda t: t.numpy().copy(), deepseek.from_numpy):
            loss = model(x).sum()
        loss.backward()

    Args:
        pack_hook: From the tensor (without history), which it must not write, to any object.
        unpack_hook: From that object to a tensor of the same shape and dtype; may be called more than once.

    Raises:
        RuntimeError: on entering, within :func:`disable_saved_tensors_hooks`; in the backward pass, when the tensor
            returned has another shape or dtype.
        TypeError: in the backward pass, when no tensor is returned.
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        if not (callable(pack_hook) and callable(unpack_hook)):
            raise TypeError(f"saved_tensors_hooks takes two functions, got {pack_hook!r} and {unpack_hook!r}")
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook
        self._before: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        why = _why_disabled.get()
        if why is not None:
            raise RuntimeError(why)
        self._before.append(_C._swap_saving_hooks(self.pack_hook, self.unpack_hook))

    def __exit__(self, *args: object) -> None:
        _C._swap_saving_hooks(*self._before.pop())


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Within it, entering :class:`saved_tensors_hooks` raises RuntimeError(``error_message``).

    Hooks that were entered before go on.
    """
    token = _why_disabled.set(error_message)
    try:
        yield
    finally:
        _why_disabled.reset(token)


guard(__name__)
