"""DLPack capsules made and read by hand (ctypes), for what no well-behaved producer sends."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

api = ctypes.pythonapi
api.PyCapsule_New.restype = ctypes.py_object
api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
api.PyCapsule_GetPointer.restype = ctypes.c_void_p
api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_GetName.restype = ctypes.c_char_p
api.PyCapsule_GetName.argtypes = [ctypes.py_object]


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Managed(ctypes.Structure):
    _fields_ = (("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    )


Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Producer:
    """One float32 array and the capsule around it; counts calls of the deleter."""

    def __init__(
        self,
        array: np.ndarray,
        *,
        versioned: bool = False,
        major: int = 1,
        flags: int = 0,
        without_strides: bool = False,
        without_deleter: bool = False,
        **fields: int,
    ) -> None:
        self.deleted = 0
        self._array = array
        dims = max(array.ndim, 1)
        self._shape = (ctypes.c_int64 * dims)(*array.shape)
        self._strides = (ctypes.c_int64 * dims)(*(s // array.itemsize for s in array.strides))
        self._managed: Any = ManagedVersioned() if versioned else Managed()
        tensor = self._managed.tensor
        tensor.data, tensor.device_type, tensor.ndim = array.ctypes.data, 1, array.ndim
        tensor.code, tensor.bits, tensor.lanes, tensor.shape = 2, 32, 1, self._shape
        if not without_strides:
            tensor.strides = self._strides
        for name, value in fields.items():
            setattr(tensor, name, value)
        if versioned:
            self._managed.major, self._managed.flags = major, flags
        self._deleter = Deleter(self._delete)
        if not without_deleter:
            self._managed.deleter = ctypes.cast(self._deleter, ctypes.c_void_p).value
        self._name = b"dltensor_versioned" if versioned else b"dltensor"
        self.capsule = api.PyCapsule_New(ctypes.addressof(self._managed), self._name, None)

    def _delete(self, _: int) -> None:
        self.deleted += 1


def name(capsule: Any) -> str:
    return api.PyCapsule_GetName(capsule).decode()


def flags(capsule: Any) -> int:
    """Of an unused versioned capsule. Bit 0: read-only, bit 1: copied."""
    pointer = api.PyCapsule_GetPointer(capsule, b"dltensor_versioned")
    return ManagedVersioned.from_address(pointer).flags
