"""Functions of dtypes: promotion, the default, limits of the number types."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import method, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek import dtype


@public
def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The dtype that two dtypes combine to."""
    return _C.promote_types(type1, type2)


@public
def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether values of one dtype may be written into a tensor of another."""
    return _C.can_cast(from_, to)


@public
def result_type(tensor1: Tensor | float, tensor2: Tensor | float) -> dtype:
    """The dtype that an op on two operands, tensors or numbers, gives."""
    return _C.result_type(tensor1, tensor2)


@public
def get_default_dtype() -> dtype:
    """The dtype of tensors made from Python floats, see :func:`set_default_dtype`."""
    return _C.get_default_dtype()


@public
def set_default_dtype(d: dtype) -> None:
    """The dtype of tensors made from Python floats (float32 at the start).

    Raises:
        TypeError: not a floating dtype.
    """
    if not isinstance(d, _C.dtype) or not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, got {d}")
    _C.set_default_dtype(d)


@public
def is_floating_point(input: Tensor) -> bool:
    """True when the dtype is floating."""
    return input.dtype.is_floating_point


@public
@method
def is_complex(input: Tensor) -> bool:
    """Whether the dtype is complex: False, as there are no complex dtypes yet."""
    return input.dtype.is_complex


# name: (mantissa bits, smallest and largest exponent of a normal number, largest value where it is not the IEEE one,
#        decimal digits that survive)
_FLOATS: dict[str, tuple[int, int, int, float | None, int]] = {
    "float64": (52, -1022, 1023, None, 15),
    "float32": (23, -126, 127, None, 6),
    "float16": (10, -14, 15, None, 3),
    "bfloat16": (7, -126, 127, None, 2),
    "float8_e4m3fn": (3, -6, 8, 448.0, 0),
    "float8_e5m2": (2, -14, 15, None, 0),
}


@public
class finfo:
    """Limits of a floating dtype (the default one when omitted).

    Attributes: ``bits``, ``eps`` (distance from 1 to the next number), ``max``, ``min``, ``tiny`` and
    ``smallest_normal``, ``resolution`` (decimal), ``dtype`` (name).

    Raises:
        TypeError: not a floating dtype.
    """

    def __init__(self, type: dtype | None = None) -> None:
        t = _C.get_default_dtype() if type is None else type
        if not isinstance(t, _C.dtype) or not t.is_floating_point:
            raise TypeError(
                f"deepseek.finfo() requires a floating point dtype, got {t}; use deepseek.iinfo for integers"
            )
        mantissa, low, high, largest, digits = _FLOATS[t.name]
        self.bits: int = t.itemsize * 8
        self.eps: float = 2.0**-mantissa
        self.max: float = largest or (2.0 - self.eps) * 2.0**high
        self.min: float = -self.max
        self.tiny: float = 2.0**low
        self.smallest_normal: float = self.tiny
        self.resolution: float = float(f"1e-{digits}")
        self.dtype: str = t.name

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, finfo) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)


@public
class iinfo:
    """Limits of an integer dtype: ``bits``, ``min``, ``max``, ``dtype`` (name).

    Raises:
        TypeError: not an integer dtype.
    """

    def __init__(self, type: dtype) -> None:
        if not isinstance(type, _C.dtype) or type.is_floating_point:
            raise TypeError(f"deepseek.iinfo() requires an integer dtype, got {type}; use deepseek.finfo for floats")
        if type is _C.bool:
            raise TypeError("deepseek.bool is not supported by iinfo")
        self.bits: int = type.itemsize * 8
        self.min: int = -(2 ** (self.bits - 1)) if type.is_signed else 0
        self.max: int = 2 ** (self.bits - type.is_signed) - 1
        self.dtype: str = type.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, iinfo) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)
