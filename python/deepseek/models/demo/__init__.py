"""The model of ``deepseek demo``: small, of bytes, with any kind of attention and feed-forward there is."""

from deepseek._missing import guard
from deepseek.models.demo.config import ModelConfig
from deepseek.models.demo.decoding import DecodeState
from deepseek.models.demo.language_model import LanguageModel

__all__ = ["DecodeState", "LanguageModel", "ModelConfig"]

guard(__name__)
