"""Reading and writing files. `deepseek.io.safetensors` is the interchange format; `deepseek.save` and `deepseek.load`
build on it. Nothing here unpickles."""

from deepseek._binding.missing import guard
from deepseek.io import safetensors

__all__ = ["safetensors"]

guard(__name__)
