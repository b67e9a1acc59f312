"""Methods of Tensor written in Python. They are attached to the C type: ``deepseek.Tensor is _C.Tensor``."""

from __future__ import annotations

from deepseek import _C
from deepseek._C import Tensor
from deepseek._device import CPU, device
from deepseek._overload import overload
from deepseek._storage import UntypedStorage, address_of
from deepseek._tensor_copy import __copy__, __deepcopy__, __reduce_ex__
from deepseek._tensor_str import tensor_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, NoReturn

    from deepseek import dtype

# --- autograd ---------------------------------------------------------------------------------------------------------


def backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradient of this tensor to ``.grad`` of the leaves it depends on.

    Args:
        gradient: weight of this tensor's shape; may be None for one element.
        retain_graph: keep saved values so that the graph can be run again (default: ``create_graph``).
        create_graph: record the backward pass itself, for higher derivatives.
        inputs: only these leaves get gradients.

    Raises:
        RuntimeError: no graph, a missing ``gradient``, a freed graph.
    """
    from deepseek import autograd

    autograd.backward(self, gradient, retain_graph, create_graph, inputs=inputs)


class RemovableHandle:
    """What ``register_hook`` returns: ``remove()`` takes the hook off; also a context manager."""

    def __init__(self, tensor: Tensor, hook: _Hook, identity: int) -> None:
        import weakref

        self._tensor = weakref.ref(tensor)
        self._hook = hook
        self._identity = identity

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        self._hook.function = None  # also when the tensor is gone and only its graph is left
        tensor = self._tensor()
        if tensor is not None:
            _C._remove_hook(tensor, self._identity)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class _Hook:
    """The function the engine calls; without one it does nothing."""

    def __init__(self, function: Callable[[Tensor], Any], keep_result: bool) -> None:
        self.function: Callable[[Tensor], Any] | None = function
        self._keep_result = keep_result

    def __call__(self, value: Tensor) -> Any:
        result = None if self.function is None else self.function(value)
        if result is not None and not self._keep_result:
            raise RuntimeError("post accumulate grad hooks should return None.")
        return result


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call ``hook(grad)`` whenever this tensor's gradient is computed; what it returns (unless None) replaces it.

    Raises:
        RuntimeError: the tensor does not require a gradient.
    """
    entry = _Hook(hook, keep_result=True)
    return RemovableHandle(self, entry, _C._register_hook(self, entry))


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Call ``hook(self)`` after a gradient was added to ``.grad``, for leaves.

    Raises:
        RuntimeError: not a leaf that requires a gradient.
    """
    if not self.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    entry = _Hook(hook, keep_result=False)
    return RemovableHandle(self, entry, _C._register_post_accumulate_grad_hook(self, entry))


def is_inference(self: Tensor) -> bool:
    """True for tensors made in ``inference_mode``."""
    return self._is_inference


def _is_view(self: Tensor) -> bool:
    """True for a differentiable view of another tensor."""
    return self._base is not None


# --- dtype and device -------------------------------------------------------------------------------------------------


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


def check_memory_format(value: Any) -> None:
    """Warns once that there are no channels-last tensors."""
    if getattr(value, "is_channels_last", False):
        from deepseek._once import warn_once

        warn_once(f"memory_format={value!r}", "tensors are in row-major order, so only the order of dims counts")


def _converted(self: Tensor, target: dtype | None, copy: bool) -> Tensor:
    if target is None or target is self.dtype:
        return self.clone() if copy else self
    return _C._to_dtype(self, target)


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


@overload
def type_(self: Tensor, dtype: None = None, non_blocking: bool = False) -> str: ...
@overload
def type_(self: Tensor, dtype: dtype | str | type, non_blocking: bool = False) -> Tensor: ...
def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The name of the tensor's type, such as ``"deepseek.FloatTensor"``; or the tensor converted to a dtype or name.

    Raises:
        ValueError: an unknown name.
    """
    from deepseek import _legacy

    if dtype is None:
        return _legacy.type_name(self.dtype)
    found = _as_dtype(dtype) or _legacy.dtype_of_type(dtype)
    if found is None:
        raise ValueError(f"invalid type: {dtype!r}")
    return _converted(self, found, False)


def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """This tensor: it is on the CPU already."""
    return self


def cuda(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> NoReturn:
    """Raises RuntimeError: there is no CUDA."""
    raise RuntimeError("cuda() is not available: deepseek runs on the CPU only; leave the call out or use .to('cpu')")


def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """This tensor: without a GPU there is no pinned memory. Warns once."""
    from deepseek._once import warn_once

    warn_once("Tensor.pin_memory()", "memory is pinned for copies to a GPU, and there is none")
    return self


def is_pinned(self: Tensor, device: Any = None) -> bool:
    """False: there is no pinned memory."""
    return False


def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """True when the memory is in row-major order without gaps, or in that order with dim 1 last for channels-last."""
    if getattr(memory_format, "is_channels_last", False):
        last = [0, *range(2, self.dim()), 1]
        return self.dim() == memory_format.dims and self.permute(last)._is_contiguous()
    return self._is_contiguous()


# --- new tensors of the same dtype ------------------------------------------------------------------------------------


def _of_class(self: Tensor, fresh: Tensor) -> Tensor:
    """``fresh`` as an object of the class that ops on ``self`` return."""
    cls = _C._result_class(self)
    return fresh if cls is Tensor else _C._as_subclass(fresh, cls)


def new_tensor(
    self: Tensor,
    data: Any,
    *,
    dtype: dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A fresh tensor with ``data``'s values, in this tensor's dtype unless one is given."""
    return _of_class(self, _C.tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad))


def new_zeros(
    self: Tensor,
    size: int | Sequence[int],
    *more: int,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Zeros of the given size, in this tensor's dtype unless one is given."""
    return _of_class(self, _C.zeros(size, *more, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad))


def new_ones(
    self: Tensor,
    size: int | Sequence[int],
    *more: int,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Ones of the given size, in this tensor's dtype unless one is given."""
    return _of_class(self, _C.ones(size, *more, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad))


def new_empty(
    self: Tensor,
    size: int | Sequence[int],
    *more: int,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Uninitialised memory of the given size, in this tensor's dtype unless one is given."""
    return _of_class(self, _C.empty(size, *more, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad))


def new_full(
    self: Tensor,
    size: Sequence[int],
    fill_value: float,
    *,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """``fill_value`` repeated to the given size, in this tensor's dtype unless one is given."""
    return _of_class(
        self, _C.full(size, fill_value, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)
    )


# --- Python protocols -------------------------------------------------------------------------------------------------


def __repr__(self: Tensor) -> str:
    return tensor_text(self)


def __format__(self: Tensor, format_spec: str) -> str:
    if self.dim() == 0:
        return format(self.item(), format_spec)
    return object.__format__(self, format_spec)


def __iter__(self: Tensor) -> Iterator[Tensor]:
    if self.dim() == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))


def __reversed__(self: Tensor) -> Tensor:
    return self if self.dim() == 0 else self.flip(0)


def __contains__(self: Tensor, element: Any) -> bool:
    if isinstance(element, complex):
        return element.imag == 0 and element.real in self
    if isinstance(element, Tensor) or _C._is_number(element):
        return bool(_C.eq(self, element).any())
    raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}.")


def __array__(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Any:
    array = self.numpy()
    if dtype is not None and array.dtype != dtype:
        if copy is False:
            raise ValueError(f"a NumPy array of dtype {dtype} of this {self.dtype} tensor needs a copy")
        return array.astype(dtype)
    return array.copy() if copy else array


def __array_wrap__(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
    """Results of NumPy functions on tensors become tensors."""
    return _C.from_numpy(array) if array.ndim else _C.tensor(array)


def numpy(self: Tensor, *, force: bool = False) -> Any:
    """A NumPy array on the same memory (no copy). Autograd does not notice writes made through the array.

    Args:
        force: detach first when the tensor requires a gradient.

    Raises:
        RuntimeError: the tensor requires a gradient.
        TypeError: NumPy has no such dtype (bfloat16 without ml_dtypes).
    """
    return _C._numpy(self, force)


def tolist(self: Tensor) -> Any:
    """Nested lists of Python numbers; a number for a 0-d tensor."""
    return _C._tolist(self)


def __dlpack__(
    self: Tensor, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
) -> Any:
    if stream is not None and stream != -1:
        raise BufferError(f"__dlpack__: a CPU tensor has no streams, got stream={stream}")
    if dl_device is not None and tuple(dl_device) != (1, 0):
        raise BufferError(f"__dlpack__: cannot export to device {tuple(dl_device)}; deepseek shares CPU memory only")
    t = self.clone() if copy else self
    return _C._to_dlpack(t, max_version is not None and max_version[0] >= 1, bool(copy))


def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    return (1, 0)  # kDLCPU


def __dir__(self: Tensor) -> list[str]:
    return sorted({*dir(type(self)), *self.__dict__})


# --- the rest ---------------------------------------------------------------------------------------------------------


def as_subclass(self: Tensor, cls: type[Tensor]) -> Tensor:
    """A ``cls`` object on the same memory and in the same graph.

    Raises:
        TypeError: ``cls`` is not a subclass of Tensor.
    """
    if not isinstance(cls, type) or not issubclass(cls, Tensor):
        raise TypeError(f"as_subclass(): cls must be a subclass of Tensor, got {cls!r}")
    return _C._as_subclass(self, cls)


def where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """This tensor's elements where ``condition``, else ``other``'s."""
    return _C.where(condition, self, other)


def index_put(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with ``values`` written at ``self[indices]``; ``accumulate=True`` adds, also at repeated positions.

    Args:
        indices: a tuple of index tensors, one for each leading dim; shapes broadcast.
        values: broadcast to the indexed shape; same dtype.

    Raises:
        RuntimeError: different dtypes.
        IndexError: an index out of range.
    """
    if values.dtype is not self.dtype:
        raise RuntimeError(
            f"Index put requires the source and destination dtypes match, got {self.dtype} for the destination and "
            f"{values.dtype} for the source."
        )
    positions: list[Tensor] = []
    for index in indices:  # a mask stands for the positions where it is True
        positions += index.nonzero().unbind(1) if index.dtype in (_C.bool, _C.uint8) else [index]
    return _C._index_put(self, values, positions, accumulate=accumulate)


def index_put_(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """:func:`index_put` into this tensor."""
    if accumulate or values.dtype is not self.dtype:
        return self.copy_(index_put(self, indices, values, accumulate))
    self[tuple(indices)] = values
    return self


def is_same_size(self: Tensor, other: Tensor) -> bool:
    """True when both have the same shape."""
    return self.shape == other.shape


def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """True when both show the same memory with the same shape and strides."""
    return (
        address_of(self) == address_of(tensor)
        and self._storage_ptr() == tensor._storage_ptr()
        and self.shape == tensor.shape
        and self.stride() == tensor.stride()
    )


def untyped_storage(self: Tensor) -> UntypedStorage:
    """The memory behind this tensor and its views."""
    return UntypedStorage(self)


def get_device(self: Tensor) -> int:
    """-1: the CPU."""
    return -1


def _device_of(self: Tensor) -> device:
    """Where the tensor is: always the CPU."""
    return CPU


def _conjugate_transposes(self: Tensor) -> Tensor:
    """The last two dims swapped, as ``mT``, because there are no complex numbers."""
    return self.mT


def _conjugate_transpose(self: Tensor) -> Tensor:
    """The conjugate transpose of a matrix, which for real numbers is its transpose."""
    if self.dim() not in (0, 2):
        raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got {self.dim()}-D tensor.")
    return self.T


METHODS: dict[str, Any] = {
    f.__name__: f
    for f in (
        backward, register_hook, register_post_accumulate_grad_hook, is_inference, _is_view, to, cpu, cuda,
        is_pinned, pin_memory,
        is_contiguous, new_tensor, new_zeros, new_ones, new_empty, new_full, __repr__, __format__, __iter__,
        __reversed__, __contains__, __array__, __array_wrap__, numpy, tolist, __dlpack__, __dlpack_device__, __dir__,
        __copy__, __deepcopy__, __reduce_ex__, as_subclass, where, index_put, index_put_, is_same_size, is_set_to,
        untyped_storage, get_device,
    )
}  # fmt: skip
METHODS["type"] = type_
METHODS["storage"] = untyped_storage
for _name, _target in {
    "float": _C.float32, "double": _C.float64, "half": _C.float16, "bfloat16": _C.bfloat16, "long": _C.int64,
    "int": _C.int32, "short": _C.int16, "char": _C.int8, "byte": _C.uint8, "bool": _C.bool,
}.items():  # fmt: skip
    METHODS[_name] = _conversion(_name, _target)

PROPERTIES: dict[str, Callable[[Tensor], Any]] = {
    "grad_fn": _C._grad_fn,
    "output_nr": _C._output_nr,
    "device": _device_of,
    "H": _conjugate_transpose,
    "mH": _conjugate_transposes,
}
# Answers that are the same for every tensor.
CONSTANTS: dict[str, Any] = {
    "is_cpu": True, "is_cuda": False, "is_meta": False, "is_mps": False, "is_sparse": False, "is_quantized": False,
    "is_nested": False, "is_mkldnn": False, "is_xpu": False, "__array_priority__": 1000,
}  # fmt: skip
