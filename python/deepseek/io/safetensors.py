"""The safetensors format, as the `safetensors` package reads and writes it.

Files are memory-mapped and tensors share the mapping: nothing is read before it is used, and writing to a tensor copies
the touched pages privately, never to the file. Files are written to a temporary name, synced and renamed, so a crash or
a full disk leaves the old file. Source: the format's specification, https://github.com/huggingface/safetensors.

Differences from the package, all on purpose:

- a header with a duplicate key is refused (the format forbids it, the package keeps the last one);
- non-contiguous tensors are stored in row-major order instead of being refused;
- tensors that share memory are each written in full instead of being refused; `deepseek.save` keeps the sharing;
- metadata are written in sorted order, so equal input gives equal bytes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._C import LoadError, _io
from deepseek.io._foreign import describe

if TYPE_CHECKING:
    from types import TracebackType

    from deepseek import Tensor

__all__ = ["load", "load_file", "safe_open", "save", "save_file"]

_HEAD = 512
_FRAMEWORKS = ("deepseek", "pt", "pytorch", "torch")


def _explained(error: LoadError, head: bytes, name: str) -> LoadError:
    """The error, with what the file seems to be where it is one of another format."""
    what = describe(head)
    if what is None:
        return error
    rule = str(error).removeprefix(f"{name}: ")
    return LoadError(f"{name}: not a safetensors file but {what} ({rule})")


def _open(filename: str | os.PathLike[str]) -> Any:
    path = os.fsencode(filename)
    try:
        return _io.SafetensorsFile.open(path)
    except LoadError as error:
        with open(path, "rb") as file:
            raise _explained(error, file.read(_HEAD), os.fsdecode(path)) from None


def _parse(data: bytes | bytearray | memoryview, name: str) -> Any:
    try:
        return _io.SafetensorsFile.from_bytes(data, name)
    except LoadError as error:
        raise _explained(error, bytes(memoryview(data)[:_HEAD]), name) from None


def _check_device(device: object) -> None:
    if device is not None and str(device) not in ("cpu", "cpu:0"):
        raise ValueError(f"device must be 'cpu', got {device!r}")


def _checked(tensors: object, metadata: object) -> tuple[list[tuple[str, Tensor]], dict[str, str] | None]:
    from deepseek import Tensor

    if not isinstance(tensors, dict):
        raise TypeError(f"tensors must be a dict of str to Tensor, got {_C._type_name(tensors)}")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"tensor names must be str, got {name!r} of type {_C._type_name(name)}")
        name.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate
        if not isinstance(tensor, Tensor):
            raise TypeError(f"tensors[{name!r}] must be a Tensor, got {_C._type_name(tensor)}")
    if metadata is not None and not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict of str to str, got {_C._type_name(metadata)}")
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must be a dict of str to str, got {key!r}: {value!r}")
        (key + value).encode()
    return list(tensors.items()), metadata


def save_file(
    tensors: dict[str, Tensor], filename: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Writes `tensors` (any shapes and dtypes) to `filename`, atomically.

    Contiguous input gives the same bytes as the package's `save_file`. Gradients and `requires_grad` are not stored.

    Raises:
        TypeError: a name or metadata entry is not a str, a value is not a Tensor.
        ValueError: a name that no file can hold (`__metadata__`, lone surrogates), or a header above 100,000,000 bytes.
        OSError: the file cannot be written; an existing one is unchanged.
    """
    entries, checked = _checked(tensors, metadata)
    _io.save_file(entries, os.fsencode(filename), checked)


def save(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes that `save_file` would write. Raises TypeError and ValueError as `save_file` does."""
    entries, checked = _checked(tensors, metadata)
    result: bytes = _io.save(entries, checked)
    return result


def load_file(filename: str | os.PathLike[str], device: object = "cpu") -> dict[str, Tensor]:
    """All tensors of a file by name, in the order of their bytes; they share one private mapping of the file.

    Data that are not aligned for their dtype, and bool data other than 0 and 1, are copied. Replacing the file is safe;
    truncating it in place while tensors are in use is not (as with any mapping).

    Raises:
        LoadError: the file breaks a rule of the format; the message names file, tensor, rule, both values, error kind.
        TypeError: a tensor's dtype has no counterpart here (U16, C64, F4, ...).
        OSError: the file cannot be opened or is not a regular file.
    """
    _check_device(device)
    file = _open(filename)
    return {name: file.tensor(name) for name in file.offset_keys()}


def load(data: bytes | bytearray | memoryview) -> dict[str, Tensor]:
    """All tensors in the bytes of a file, which are copied once. Raises as `load_file`."""
    file = _parse(data, "<bytes>")
    return {name: file.tensor(name) for name in file.offset_keys()}


class safe_open:
    """Opens a file and gives tensors one by one; a context manager.

    Args:
        filename: path of the file; only its header is read.
        framework: accepted so that code for the package runs unchanged; 'deepseek', 'pt', 'pytorch' or 'torch'.
        device: only 'cpu'.

    Raises as `load_file`. Tensors stay valid after the file is closed.

    >>> with safe_open("model.safetensors") as f:
    ...     first = f.get_tensor(f.keys()[0])
    ...     rows = f.get_slice("embedding")[:100]
    """

    def __init__(self, filename: str | os.PathLike[str], framework: str = "deepseek", device: object = "cpu") -> None:
        if framework not in _FRAMEWORKS:
            raise ValueError(f"framework must be one of {_FRAMEWORKS}, got {framework!r}; for numpy use Tensor.numpy()")
        _check_device(device)
        self._file: Any = _open(filename)

    def _opened(self) -> Any:
        if self._file is None:
            raise ValueError("File is closed")
        return self._file

    def keys(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._opened().offset_keys())

    def offset_keys(self) -> list[str]:
        """Names of the tensors in the order of their bytes."""
        names: list[str] = self._opened().offset_keys()
        return names

    def metadata(self) -> dict[str, str] | None:
        """The file's `__metadata__`, None where it has none."""
        result: dict[str, str] | None = self._opened().metadata()
        return result

    def get_tensor(self, name: str) -> Tensor:
        """The tensor `name`, sharing the mapping. KeyError for an unknown name, TypeError for a dtype unknown here."""
        tensor: Tensor = self._opened().tensor(name)
        return tensor

    def get_tensors(self) -> dict[str, Tensor]:
        """All tensors by name, in the order of their bytes."""
        file = self._opened()
        return {name: file.tensor(name) for name in file.offset_keys()}

    def get_slice(self, name: str) -> SafeSlice:
        """A stand-in for the tensor `name` that is read where it is indexed. KeyError for an unknown name."""
        return SafeSlice(self._opened(), name)

    def __enter__(self) -> safe_open:
        self._opened()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file = None


class SafeSlice:
    """A tensor in a file, with shape and dtype known; indexing gives a view of the mapping."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name
        self._dtype, self._shape = file.info(name)

    def get_shape(self) -> list[int]:
        """The full tensor's sizes."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The dtype as the file spells it, such as 'F32'."""
        dtype: str = self._dtype
        return dtype

    def __getitem__(self, index: Any) -> Tensor:
        """Any index that a Tensor takes."""
        tensor: Tensor = self._file.tensor(self._name)[index]
        return tensor


guard(__name__)
