"""Language models built from :mod:`deepseek.nn`."""

from deepseek._missing import guard
from deepseek.models.config import ModelConfig
from deepseek.models.decoding import DecodeState
from deepseek.models.generation import generate, stream
from deepseek.models.language_model import LanguageModel

__all__ = ["DecodeState", "LanguageModel", "ModelConfig", "generate", "stream"]

guard(__name__)
