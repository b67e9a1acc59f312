"""``autocast``, and how user-defined Functions are made to work under it."""

from __future__ import annotations

import functools

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek.amp.autocast_state import LOWER, check_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from deepseek import dtype

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]


def is_autocast_available(device_type: str) -> bool:
    """Whether ``device_type`` has autocast: the CPU does.

    Raises:
        RuntimeError: not the name of a device.
    """
    check_device(device_type, enabled=False)
    return device_type == "cpu"


class autocast:
    """Run matrix products in a 16-bit dtype and losses in float32. A context manager and a decorator.

    The table is PyTorch's for CPUs: docs/architecture.md, "Autocast". Ops in place and with ``out=`` are not cast.

    Weights (float32 leaves that require gradients) are cast once: the cast is kept until the outermost region of the
    thread ends, and made anew when the weight was written. All uses share it, and their gradients are summed in
    float32 before they go on to the weight.

    Args:
        device_type: ``"cpu"``; another device where ``enabled`` is False, which changes nothing on the CPU.
        dtype: ``bfloat16`` or ``float16``; None: the one that is set here, which is bfloat16 outside all regions. Any
            other switches autocast off with a warning, as in PyTorch.
        enabled: False switches it off inside another autocast.
        cache_enabled: False casts weights for each use; None leaves it as it is set here.

    Raises:
        RuntimeError: another device.
        ValueError: a device that is not given by its name.
    """

    def __init__(
        self,
        device_type: str = "cpu",
        dtype: dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        check_device(device_type, enabled)
        self.device = device_type
        self.fast_dtype = _C._autocast_state()[1] if dtype is None else dtype
        self._cache_enabled = _C._autocast_cache_enabled() if cache_enabled is None else bool(cache_enabled)
        if enabled and self.fast_dtype not in LOWER:
            import warnings

            warnings.warn(
                f"In CPU autocast, but the target dtype {self.fast_dtype} is not supported. Disabling autocast. CPU "
                "Autocast only supports dtype of deepseek.bfloat16, deepseek.float16 currently.",
                stacklevel=2,
            )
            enabled = False
        if self.fast_dtype not in LOWER:
            self.fast_dtype = _C.bfloat16
        self._enabled = bool(enabled)
        self._before: list[tuple[bool, _C.dtype, bool]] = []

    def __enter__(self) -> autocast:
        state, of_cpu = _C._autocast_state(), self.device == "cpu"
        self._before.append(
            _C._enter_autocast(
                self._enabled if of_cpu else state[0], self.fast_dtype if of_cpu else state[1], self._cache_enabled
            )
        )
        return self

    def __exit__(self, *exc: object) -> None:
        _C._leave_autocast(self._before.pop())

    def __call__(self, func: F) -> F:
        if not callable(func):
            raise TypeError(
                f"autocast()(func) requires a callable, but got {type(func).__name__}; as a context manager: "
                "with autocast('cpu'): ..."
            )

        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with autocast(self.device, self.fast_dtype, self._enabled, self._cache_enabled):
                return func(*args, **kwargs)

        return wrapper  # type: ignore[return-value]


def _cast(value: Any, target: dtype) -> Any:
    """Tensors of floats but float64 in ``target``, also those inside tuples, lists and dicts."""
    if isinstance(value, _C.Tensor):
        return value.to(target) if value.is_floating_point() and value.dtype is not _C.float64 else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cast(item, target) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, target) for item in value)
    if isinstance(value, dict):
        return {key: _cast(item, target) for key, item in value.items()}
    return value


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: dtype | None = None) -> Any:
    """Decorator of a :class:`deepseek.autograd.Function`'s ``forward`` that says what autocast does to it.

    Args:
        fwd: the forward; its first argument is the context.
        device_type: ``"cpu"``; any other device is never under autocast, so that nothing changes.
        cast_inputs: None: the ops inside are cast as anywhere. A dtype: under autocast, floating-point arguments but
            float64 (also in tuples, lists and dicts) come in it and the ops inside are not cast; without autocast it
            has no effect.

    The ``backward`` needs :func:`custom_bwd`, which puts back what was set here.

    Raises:
        RuntimeError: not the name of a device.
        ValueError: a device that is not given by its name.
    """
    check_device(device_type, enabled=False)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        on, ctx._dtype = _C._autocast_state()
        on = on and device_type == "cpu"
        ctx._fwd_used_autocast = on and cast_inputs is None
        if cast_inputs is None or not on:
            return fwd(ctx, *args, **kwargs)
        args, kwargs = _cast(args, cast_inputs), _cast(kwargs, cast_inputs)
        with autocast(device_type, enabled=False):
            return fwd(ctx, *args, **kwargs)

    return forward


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorator of a Function's ``backward``: it runs under the autocast that its ``forward`` ran under.

    Args:
        bwd: the backward; its first argument is the context. The forward must have :func:`custom_fwd`.
        device_type: as there.

    Raises:
        RuntimeError: not the name of a device; the forward has no :func:`custom_fwd`.
        ValueError: a device that is not given by its name.
    """
    check_device(device_type, enabled=False)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(ctx, "_fwd_used_autocast"):
            raise RuntimeError(
                "custom_bwd: the forward of this Function says nothing about autocast; decorate it with custom_fwd"
            )
        with autocast(device_type, ctx._dtype, ctx._fwd_used_autocast):
            return bwd(ctx, *args, **kwargs)

    return backward


guard(__name__)
