"""The package's functions that are written in Python, one file per family; the package shows all of them.

A function is written in Python when it needs Python values: when it takes or gives something that is no tensor and no
attribute of an op (an object of another library, a callable, a bool), when what its arguments are decides which
function it is, or when sizes or values of the result are read from a tensor. What goes from tensors and plain
attributes to tensors is an op of the table, composed of other ops in C++ where it needs no kernel of its own.
"""

# ruff: noqa: F403  (@public makes __all__ of each file)

from deepseek._binding.public import gather
from deepseek._functions.aliases import *
from deepseek._functions.comparison import *
from deepseek._functions.counting import *
from deepseek._functions.creation import *
from deepseek._functions.dtypes import *
from deepseek._functions.pointwise import *
from deepseek._functions.products import *
from deepseek._functions.reductions import *
from deepseek._functions.searching import *
from deepseek._functions.settings import *
from deepseek._functions.shapes import *
from deepseek._functions.splitting import *

gather(__name__)
