"""deepseek: a deep-learning engine for CPUs with a PyTorch-like API.

``import deepseek`` loads the C++ core and nothing heavy: sub-packages (``deepseek.nn``, ``deepseek.optim``, …) and
NumPy load on first use.
"""

# ruff: noqa: F403  (the modules list what they give in __all__)

from __future__ import annotations

from deepseek import _C, _install

_install.install()

from deepseek._aliases import *  # noqa: E402
from deepseek._C import *  # noqa: E402  (the ops of _C.__all__, which install() sets)
from deepseek._composites import *  # noqa: E402
from deepseek._einsum import *  # noqa: E402
from deepseek._functions import *  # noqa: E402
from deepseek._top import *  # noqa: E402
from deepseek._unique import *  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:  # names that load on first use: see _lazy.py
    from deepseek import amp as amp
    from deepseek import autograd as autograd
    from deepseek import cuda as cuda
    from deepseek import io as io
    from deepseek import jit as jit
    from deepseek import linalg as linalg
    from deepseek import models as models
    from deepseek import nn as nn
    from deepseek import optim as optim
    from deepseek import quantization as quantization
    from deepseek import random as random
    from deepseek import testing as testing
    from deepseek import utils as utils
    from deepseek import version as version
    from deepseek._serialization import load as load
    from deepseek._serialization import save as save
    from deepseek.amp import autocast as autocast
    from deepseek.jit import compile as compile

    __version__: str

# dtypes, under PyTorch's names. `float`, `int` and `bool` hide Python's in this module from here on.
float64 = double = _C.float64
float32 = float = _C.float32
float16 = half = _C.float16
bfloat16 = _C.bfloat16
int64 = long = _C.int64
int32 = int = _C.int32
int16 = short = _C.int16
int8 = _C.int8
uint8 = _C.uint8
bool = _C.bool
float8_e4m3fn = _C.float8_e4m3fn
float8_e5m2 = _C.float8_e5m2
newaxis = None


def __getattr__(name: str) -> object:
    from deepseek._lazy import load  # `from deepseek import _lazy` would ask this function for it

    value = globals()[name] = load(name, globals())
    return value


def __dir__() -> list[str]:
    from deepseek._lazy import names

    return names(globals())
