"""Language models built from :mod:`deepseek.nn`: families, each in a folder of its own, and what they have in common.

A family is a :class:`CausalLMConfig` and a :class:`CausalLM`, and one line in :mod:`deepseek.models.family`, or a call
of :func:`register`. Trainer, evaluation, generation and the command line know nothing else of it.
"""

import importlib
import sys

from deepseek._binding.missing import guard
from deepseek.models.causal_lm import CausalLM, DecodeCache
from deepseek.models.demo.config import ModelConfig
from deepseek.models.demo.decoding import DecodeState
from deepseek.models.demo.language_model import LanguageModel
from deepseek.models.family import CausalLMConfig, ModelSize, config_class, config_from_dict, families, register
from deepseek.models.generation import generate, stream

__all__ = [
    "CausalLM",
    "CausalLMConfig",
    "DecodeCache",
    "DecodeState",
    "LanguageModel",
    "ModelConfig",
    "ModelSize",
    "config_class",
    "config_from_dict",
    "families",
    "generate",
    "register",
    "stream",
]

# The demo's modules under the names they had before families had folders.
for _name in ("blocks", "config", "decoding", "dense_attention", "former_names", "language_model", "layers", "size"):
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = importlib.import_module(f"{__name__}.demo.{_name}")

guard(__name__)
