"""The old tensor types, such as ``FloatTensor``: constructors with a fixed dtype, and names for ``Tensor.type()``."""

from __future__ import annotations

from deepseek import _C
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek import dtype

_NAMES = {
    "FloatTensor": "float32",
    "DoubleTensor": "float64",
    "HalfTensor": "float16",
    "BFloat16Tensor": "bfloat16",
    "LongTensor": "int64",
    "IntTensor": "int32",
    "ShortTensor": "int16",
    "CharTensor": "int8",
    "ByteTensor": "uint8",
    "BoolTensor": "bool",
}


class LegacyType:
    """``FloatTensor(2, 3)`` is uninitialised memory of that size, ``FloatTensor([1, 2])`` holds those values."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.dtype: dtype = getattr(_C, _NAMES[name])

    def __call__(self, *args: Any) -> Tensor:
        if not args:
            return _C.empty(0, dtype=self.dtype)
        if isinstance(args[0], int):
            return _C.empty(args, dtype=self.dtype)
        if isinstance(args[0], _C.Size):
            return _C.empty(args[0], dtype=self.dtype)
        return _C.tensor(args[0], dtype=self.dtype)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is self.dtype

    def __repr__(self) -> str:
        return f"<class 'deepseek.{self.__name__}'>"


_types: dict[str, LegacyType] = {}


def legacy_type(name: str) -> LegacyType:
    """The one object of a name, made on first use."""
    return _types.setdefault(name, LegacyType(name))


def type_name(t: dtype) -> str:
    """``"deepseek.FloatTensor"`` for float32; the dtype's own name where there never was an old type."""
    for name, dtype_name in _NAMES.items():
        if dtype_name == t.name:
            return f"deepseek.{name}"
    return str(t)


def dtype_of_type(value: Any) -> dtype | None:
    """The dtype of an old type or of its name, with or without ``deepseek.``; None for anything else."""
    if isinstance(value, LegacyType):
        return value.dtype
    name = value.rpartition(".")[2] if isinstance(value, str) else ""
    return getattr(_C, _NAMES[name]) if name in _NAMES else None
