"""Functions that make tensors: from Python's data, from other libraries' tensors, from numbers."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.once import warn_once
from deepseek._binding.public import public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek import device, dtype


@public
def tensor(
    data: Any,
    *,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A fresh tensor with the values of ``data``.

    Args:
        data: numbers, nested sequences of them, arrays, tensors, also other libraries' (anything with ``__dlpack__``).
        dtype: of the result; omitted, it follows from the data: the default dtype for Python's floats, int64 for ints.
        device: the CPU.
        requires_grad: whether gradients are recorded.
        pin_memory: no effect without a GPU; a warning says so once.

    Raises:
        RuntimeError: a device other than the CPU.
        TypeError: something that is not a number.
        ValueError: sequences of different lengths.
    """
    if pin_memory:
        warn_once("tensor(pin_memory=True)", "memory is pinned for copies to a GPU, and there is none")
    return _C.tensor(data, dtype=dtype, device=device, requires_grad=requires_grad)


@public
def as_tensor(data: Any, dtype: dtype | None = None, device: device | str | None = None) -> Tensor:
    """``data`` itself if it is a tensor of that dtype, a tensor on its memory if it is an array, else a fresh one.

    Args:
        data: as in :func:`tensor`.
        dtype: of the result; the data's when omitted.
        device: the CPU.
    """
    return _C.as_tensor(data, dtype, device)


@public
def from_numpy(ndarray: Any) -> Tensor:
    """A tensor on the memory of a NumPy array: writes through one are seen by the other.

    Raises:
        TypeError: not an array, or a dtype that has no counterpart.
        ValueError: memory that a tensor cannot show.
    """
    return _C.from_numpy(ndarray)


@public
def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """The data as a tensor: numbers, nested sequences, arrays, tensors of this and of other libraries.

    Args:
        obj: the data.
        dtype: of the result; None takes that of the data.
        device: only the CPU.
        copy: True for memory of its own, False for the memory of ``obj``, None for that where it can be shared.
        requires_grad: whether the result requires gradients. A tensor that does keeps its history then, and loses it
            otherwise.

    Raises:
        ValueError: ``copy=False`` and the memory cannot be shared.
    """
    shares = isinstance(obj, Tensor) or hasattr(obj, "__dlpack__") or hasattr(obj, "__array_interface__")
    if copy is False and not shares:
        raise ValueError(f"asarray(): copy=False, but the memory of a {_C._type_name(obj)} cannot be shared")
    if copy is False and dtype is not None and (own := as_tensor(obj).dtype) != dtype:
        raise ValueError(f"asarray(): copy=False, but {dtype} does not fit the memory of {own}")
    found = as_tensor(obj, dtype=dtype, device=device) if shares else tensor(obj, dtype=dtype, device=device)
    if copy and shares:
        found = found.clone()
    if not requires_grad:
        return found.detach() if found.requires_grad else found
    return found if found.requires_grad else found.detach().requires_grad_()


@public
def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of an object with ``__dlpack__`` (NumPy array, PyTorch tensor, …) or of a DLPack capsule.

    Raises:
        BufferError: memory that is not the CPU's, a dtype that has no counterpart, or a tensor that requires gradients
            (:func:`from_torch` takes its values).
        TypeError: an object without ``__dlpack__``.
    """
    if type(ext_tensor).__name__ == "PyCapsule":
        return _C._from_dlpack_capsule(ext_tensor)
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(f"from_dlpack(): expected an object with __dlpack__, got {_C._type_name(ext_tensor)}")
    return _C._from_dlpack_producer(ext_tensor)


@public
def from_torch(other: Any) -> Tensor:
    """A tensor on the memory of a PyTorch tensor, or of another library's that has ``__dlpack__``.

    Writing to one changes the other. Every dtype that exists here is taken, bfloat16 and float8 too, with any
    strides. A tensor that requires gradients is taken without them: the result is a leaf that requires none. PyTorch
    is not imported. The way back is ``torch.from_dlpack(tensor)``; ``tensor()`` copies, and ``load_state_dict`` takes a
    PyTorch module's ``state_dict()`` as it is.

    Raises:
        BufferError: memory that is not the CPU's, or a dtype that has no counterpart (complex, uint16, …).
        TypeError: an object without ``__dlpack__``.

    >>> weight = deepseek.from_torch(torch_module.weight)
    """
    if isinstance(other, Tensor) or not hasattr(other, "__dlpack__"):
        raise TypeError(f"from_torch(): expected a tensor of PyTorch, got {_C._type_name(other)}")
    return as_tensor(other)
