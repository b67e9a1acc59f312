"""Methods of Tensor that convert: to another dtype, and to the one device and layout there is."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.once import warn_once
from deepseek._binding.overload import overload
from deepseek._binding.public import CONSTANTS, METHODS, PROPERTIES, method, method_named
from deepseek._C import Tensor
from deepseek._tensor.device import CPU, device
from deepseek._tensor.layout import check_memory_format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from deepseek import dtype


# --- dtype ------------------------------------------------------------------------------------------------------------


def _as_dtype(value: Any) -> dtype | None:
    """A dtype from itself or Python's float, int, bool; None for anything else."""
    if isinstance(value, _C.dtype):
        return value
    return {float: _C.float64, int: _C.int64, bool: _C.bool}.get(value) if isinstance(value, type) else None


def _dtype_like(value: Any) -> dtype | None:
    """Ours with the name of another library's dtype, such as torch.float32."""
    own = getattr(_C, str(value).rpartition(".")[2], None) if type(value).__name__.lower().endswith("dtype") else None
    return own if isinstance(own, _C.dtype) else None


def _check_device(value: Any) -> None:
    if value is not None and value != "cpu" and not isinstance(value, device):
        if not isinstance(value, (str, int)):
            way = f"; the dtype is called {_dtype_like(value)} here" if _dtype_like(value) else ""
            raise TypeError(f"to() expects a dtype, a device or a Tensor, got {_C._given_for_tensor(value)}{way}")
        device(value)


def _converted(self: Tensor, target: dtype | None, copy: bool) -> Tensor:
    if target is None or target is self.dtype:
        return self.clone() if copy else self
    return _C._to_dtype(self, target)


@method
def to(
    self: Tensor,
    device: device | str | dtype | type | Tensor | None = None,
    dtype: dtype | type | bool | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    *,
    other: Tensor | None = None,
    memory_format: Any = None,
) -> Tensor:
    """This tensor in another dtype: ``to(dtype)``, ``to(device, dtype)`` or ``to(other)``; itself when nothing changes.

    Args:
        device: the CPU. A dtype or a tensor in its place is ``dtype`` or ``other``, and what follows moves up by one.
        dtype: of the result; this tensor's when omitted.
        non_blocking: no effect, there is nothing to wait for.
        copy: a fresh tensor in any case.
        other: a tensor with the dtype of the result.
        memory_format: no effect, see ``deepseek.memory_format``.

    Raises:
        RuntimeError: a device other than the CPU.
        TypeError: anything else.
    """
    # x.to(dtype) is by far the commonest.
    if isinstance(device, _C.dtype) and dtype is None and other is None and memory_format is None and not copy:
        return self if device is self.dtype else _C._to_dtype(self, device)
    if isinstance(device, (_C.dtype, Tensor, type)):
        if isinstance(dtype, bool):  # to(dtype, non_blocking, copy)
            dtype, copy = None, copy or non_blocking
        if dtype is not None or other is not None:
            raise TypeError(f"to() got two dtypes: {device!r} and {dtype or other!r}")
        if isinstance(device, Tensor):
            device, other = None, device
        else:
            device, dtype = None, device
    if other is not None:
        dtype = other.dtype
    if memory_format is not None:
        check_memory_format(memory_format)
    _check_device(device)
    target = _as_dtype(dtype)
    if target is None and dtype is not None:
        raise TypeError(f"to(): dtype must be a deepseek.dtype, got {dtype!r}")
    return _converted(self, target, copy)


def _conversion(name: str, target: dtype) -> Callable[..., Tensor]:
    def convert(self: Tensor, memory_format: Any = None) -> Tensor:
        return self if self.dtype is target else _C._to_dtype(self, target)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"This tensor as {target}; itself when it is that already."
    return convert


for _name, _target in {
    "float": _C.float32, "double": _C.float64, "half": _C.float16, "bfloat16": _C.bfloat16, "long": _C.int64,
    "int": _C.int32, "short": _C.int16, "char": _C.int8, "byte": _C.uint8, "bool": _C.bool,
}.items():  # fmt: skip
    METHODS[_name] = _conversion(_name, _target)


@overload
def type_(self: Tensor, dtype: None = None, non_blocking: bool = False) -> str: ...
@overload
def type_(self: Tensor, dtype: dtype | str | type, non_blocking: bool = False) -> Tensor: ...
@method_named("type")
def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The name of the tensor's type, such as ``"deepseek.FloatTensor"``; or the tensor converted to a dtype or name.

    Raises:
        ValueError: an unknown name.
    """
    from deepseek._tensor import legacy_types

    if dtype is None:
        return legacy_types.type_name(self.dtype)
    found = _as_dtype(dtype) or legacy_types.dtype_of_type(dtype)
    if found is None:
        raise ValueError(f"invalid type: {dtype!r}")
    return _converted(self, found, False)


# --- device and layout ------------------------------------------------------------------------------------------------


@method
def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """This tensor: it is on the CPU already."""
    return self


@method
def cuda(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> NoReturn:
    """Raises RuntimeError: there is no CUDA."""
    raise RuntimeError("cuda() is not available: deepseek runs on the CPU only; leave the call out or use .to('cpu')")


@method
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """This tensor: without a GPU there is no pinned memory. Warns once."""
    warn_once("Tensor.pin_memory()", "memory is pinned for copies to a GPU, and there is none")
    return self


@method
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """False: there is no pinned memory."""
    return False


@method
def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """True when the memory is in row-major order without gaps, or in that order with dim 1 last for channels-last."""
    if getattr(memory_format, "is_channels_last", False):
        last = [0, *range(2, self.dim()), 1]
        return self.dim() == memory_format.dims and self.permute(last)._is_contiguous()
    return self._is_contiguous()


@method
def get_device(self: Tensor) -> int:
    """-1: the CPU."""
    return -1


def _device_of(self: Tensor) -> device:
    """Where the tensor is: always the CPU."""
    return CPU


PROPERTIES["device"] = _device_of
# Answers that are the same for every tensor.
CONSTANTS.update({
    "is_cpu": True, "is_cuda": False, "is_meta": False, "is_mps": False, "is_sparse": False, "is_quantized": False,
    "is_nested": False, "is_mkldnn": False, "is_xpu": False,
})  # fmt: skip
