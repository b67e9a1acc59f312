"""Arguments nobody should pass: numbers beyond every limit, objects whose own methods raise or lie, odd tensors.

Every value comes from a ``random.Random``, so a case is a function of its number.
"""

from __future__ import annotations

import itertools
import sys
from fractions import Fraction

import deepseek
import numpy as np

INTEGERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    -2,
    255,
    -(2**31),
    2**31,
    2**32,
    2**62,
    -(2**62),
    2**63 - 1,
    -(2**63),
    2**63,
    2**64,
    2**70,
]
ERRORS = [ValueError, TypeError, KeyError, RuntimeError, AttributeError, MemoryError, StopIteration]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.5, float("nan"), float("inf"), -float("inf"), 1e308, 5e-324, 1e-45, 2.0**63]
DTYPES = [d for d in vars(deepseek).values() if isinstance(d, deepseek.dtype)]
SHAPES = [(), (1,), (3,), (2, 3), (4, 4), (2, 2, 3), (0,), (0, 3), (2, 0, 4), (1,) * 8, (1, 3, 4, 4)]
WORDS = ["", "a", "sum", "mean", "none", "cpu", "cuda:0", "float32", "\0", "\ud800", "ä" * 40, "x" * 100_000, "i,i->"]


class Hostile:
    """All its special methods raise what `error` says."""

    def __init__(self, error: type[BaseException]) -> None:
        object.__setattr__(self, "_error", error)


def _raises(self, *args, **kwargs):
    raise object.__getattribute__(self, "_error")("from a hostile object")


SPECIAL = """
    __index__ __int__ __float__ __bool__ __complex__ __round__ __bytes__ __len__ __iter__ __next__ __contains__
    __getitem__ __setitem__ __eq__ __ne__ __lt__ __hash__ __repr__ __str__ __format__ __call__ __getattr__ __setattr__
    __array__ __array_interface__ __dlpack__ __dlpack_device__ __fspath__ __enter__ __exit__ __add__ __radd__
    __mul__ __rmul__ __matmul__ __rmatmul__ __reduce__ __copy__ __deepcopy__ __instancecheck__ keys read write
"""
for _name in SPECIAL.split():
    setattr(Hostile, _name, _raises)


class Liar:
    """Answers, but with values of the wrong type or size, another each time."""

    def __init__(self, rng) -> None:
        self._rng = rng

    def __index__(self):
        return self._rng.choice(INTEGERS)

    def __len__(self):
        return self._rng.choice([0, 1, 3, 2**62])

    def __getitem__(self, key):
        if self._rng.random() < 0.2:
            raise IndexError
        return self._rng.choice(INTEGERS)

    def __float__(self):
        return self._rng.choice(FLOATS)

    def __hash__(self):
        return self._rng.choice([0, 1, -2])

    def __eq__(self, other):
        return self._rng.choice([True, False, NotImplemented])

    def __repr__(self):
        return "Liar()"


class LyingList(list):
    """A list whose length and items change while it is read."""

    def __len__(self):
        return list.__len__(self) + (1 if sys._getframe(1).f_code.co_name.startswith("_") else 0)

    def __iter__(self):
        self.append(3.0)
        return itertools.islice(list.__iter__(self), 20)

    def __getitem__(self, i):
        if list.__len__(self) < 8:
            self.append([1.0])
        return list.__getitem__(self, i)


class Shrinking:
    """Empties the list it stands in when it is used as a number."""

    def __init__(self, owner: list) -> None:
        self._owner = owner

    def __index__(self):
        self._owner.clear()
        return 1

    __float__ = __int__ = __index__


class Subclass(deepseek.Tensor):
    """Looks at itself while it dies."""

    def __del__(self):
        _ = (self.shape, self.grad, self.numel())


def looped() -> list:
    items: list = [1.0]
    items.append(items)
    return items


def deep(n: int) -> list:
    items: list = []
    for _ in range(n):
        items = [items]
    return items


def shrinking() -> list:
    items: list = [1, 2]
    items[0] = Shrinking(items)
    return items


def array(rng):
    kind = rng.randrange(9)
    a = np.arange(24).astype(rng.choice(["f4", "f8", "i8", "u1", "i4", "?", "f2"])).reshape(2, 3, 4)
    if kind == 0:
        a.flags.writeable = False
    elif kind == 1:
        return a[:, ::-1]
    elif kind == 2:
        return a.astype(">f8")
    elif kind == 3:
        return np.array([object(), None])
    elif kind == 4:
        return np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])
    elif kind == 5:
        return np.frombuffer(bytes(65), dtype="u1")[1:].view("f8")  # unaligned
    elif kind == 6:
        return np.broadcast_to(np.float32(1), (2**20, 2**20))
    elif kind == 7:
        return rng.choice(
            [np.float32(1), np.int64(-1), np.bool_(True), np.complex64(1), np.datetime64("now"), np.str_("a")]
        )
    return a


def tensor(rng, endless: list[str] | None = None):
    """A tensor of any sort. Adds to `endless` when so many elements stand in it that work on them has no end."""
    dtype, shape = rng.choice(DTYPES), rng.choice(SHAPES)
    n = int(np.prod(shape))
    values = [rng.choice(FLOATS if dtype.is_floating_point else [0, 1, 1, 2]) for _ in range(n)]
    t = deepseek.tensor(values, dtype=deepseek.float64).to(dtype).reshape(shape)
    kind = rng.randrange(16)
    real = dtype.is_floating_point and dtype.itemsize > 1  # float8 has no arithmetic
    if kind == 0 and t.dim():
        return t.transpose(0, -1)
    if kind == 1 and t.dim() < 8:
        return t.unsqueeze(0).expand(rng.choice([0, 2, 5]), *shape)
    if kind == 2 and endless is not None:
        endless.append("huge")
        one = deepseek.ones(1, 1, dtype=dtype)
        return one.expand(*rng.choice([(2**40, 1), (1, 2**62), (2**31, 2**31), (2**63 - 1, 1)]))
    if kind == 3:
        return t.as_strided((1, 1, 0), (2**62, -(2**62), 2**61)) if t.numel() else t
    if kind == 4 and t.dim() and t.shape[-1] > 1:
        return t[..., ::2]
    if kind == 5 and real:
        return t.requires_grad_()
    if kind == 6 and real:
        return t.requires_grad_() * 2
    if kind == 7:
        with deepseek.inference_mode():
            return t.clone()
    if kind == 8:
        a = np.arange(6, dtype="f4").reshape(2, 3)
        a.flags.writeable = False
        return deepseek.from_numpy(a)
    if kind == 9:
        return t.detach().as_subclass(Subclass)
    if kind == 10 and t.numel() > 1:
        return t.reshape(-1).as_strided((2, 2), (0, 1))  # overlaps itself
    if kind == 11:
        return deepseek.from_dlpack(np.arange(6.0)[::-1])  # negative strides
    if kind == 12 and real:
        y = t.clone().requires_grad_() * 1
        y.note = y
        y.register_hook(lambda g: y)
        return y
    return t


def capsule(rng):
    c = deepseek.ones(2).__dlpack__()
    if rng.random() < 0.5:
        deepseek._C._from_dlpack_capsule(c)  # used up
    return c


def dead_memory():
    view = memoryview(bytearray(8))
    view.release()
    return view


def anything(rng, endless: list[str] | None = None):
    """A value of no particular type."""
    return rng.choice(_MAKERS)(rng, endless)


def _some(rng, endless):
    return [anything(rng, endless) for _ in range(rng.randrange(4))]


_MAKERS = [
    lambda r, e: r.choice(INTEGERS),
    lambda r, e: r.choice(INTEGERS),
    lambda r, e: r.choice(FLOATS),
    lambda r, e: r.choice([None, True, False, Ellipsis, NotImplemented, 1j, b"", b"\0" * 9, Fraction(1, 3)]),
    lambda r, e: r.choice(WORDS),
    lambda r, e: tensor(r, e),
    lambda r, e: tensor(r, e),
    lambda r, e: tensor(r, e),
    lambda r, e: array(r),
    lambda r, e: r.choice(DTYPES),
    lambda r, e: r.choice([int, float, complex, deepseek.Tensor, Subclass, deepseek.dtype, type(np), np.float32]),
    lambda r, e: r.choice([len, deepseek.add, deepseek.Tensor.add, deepseek, lambda *a, **k: None, lambda: 1 / 0]),
    lambda r, e: slice(*(r.choice([None, *INTEGERS]) for _ in range(3))),
    lambda r, e: Hostile(
        r.choice([ValueError, TypeError, KeyError, RuntimeError, AttributeError, MemoryError, StopIteration])
    ),
    lambda r, e: Liar(r),
    lambda r, e: r.choice([looped(), deep(40), deep(100_000), shrinking(), LyingList([1.0, 2.0]), LyingList()]),
    lambda r, e: [r.choice(INTEGERS) for _ in range(r.randrange(10))],
    lambda r, e: tuple(r.choice(INTEGERS) for _ in range(r.randrange(10))),
    lambda r, e: tuple(_some(r, e)),
    lambda r, e: _some(r, e),
    lambda r, e: {r.choice(WORDS): anything(r, e)},
    lambda r, e: r.choice([range(0), range(3), range(2**62), set(), frozenset([1]), iter([1, 2]), object()]),
    lambda r, e: deepseek.Size([1, 2]),
    lambda r, e: r.choice([deepseek.device("cpu"), deepseek.Generator(), deepseek.default_generator]),
    lambda r, e: capsule(r),
    lambda r, e: dead_memory(),
]


class Theme:
    """What the tensors of one call have in common, so that some calls come through the first checks."""

    def __init__(self, rng) -> None:
        self.dtype = rng.choice([deepseek.float32, deepseek.float32, *DTYPES])
        self.shape = rng.choice([(3,), (2, 3), (4, 4), (2, 2, 3), (1, 2, 3, 4), (2, 2, 2, 2), (0, 3)])

    def tensor(self, rng):
        whole = self.shape
        shape = rng.choice([whole, whole, whole, whole[-1:], whole[:1], (), (3,), (2, 3), (2, 2, 3), (0,)])
        dtype = rng.choice([self.dtype, self.dtype, self.dtype, deepseek.int64, deepseek.int32, *DTYPES])
        values = [float(rng.choice([0, 1, 1, 2, -1, 0.5])) for _ in range(int(np.prod(shape)))]
        return deepseek.tensor(values, dtype=deepseek.float64).to(dtype).reshape(shape)


def typed(kind: str, rng, endless: list[str] | None = None, theme: Theme | None = None):
    """A value of the type a schema asks for, with hostile contents; seldom of another type."""
    if rng.random() < 0.05:
        return anything(rng, endless)
    if kind.endswith("?") and rng.random() < 0.3:
        return None
    kind = kind.removesuffix("?").rstrip("*")
    small = rng.random() < 0.6
    if kind == "Tensor":
        return theme.tensor(rng) if theme and rng.random() < 0.7 else tensor(rng, endless)
    if kind == "Tensor[]":
        return [typed("Tensor", rng, endless, theme) for _ in range(rng.randrange(4))]
    if kind == "int":
        return rng.randrange(-3, 5) if small else rng.choice(INTEGERS)
    if kind == "int[]":
        return [rng.randrange(-2, 5) if small else rng.choice(INTEGERS) for _ in range(rng.randrange(5))]
    if kind == "bool":
        return rng.random() < 0.5
    if kind in ("float", "Scalar"):
        return rng.choice(FLOATS + INTEGERS)
    if kind == "str":
        return rng.choice(WORDS)
    if kind == "dtype":
        return rng.choice(DTYPES)
    return anything(rng, endless)
