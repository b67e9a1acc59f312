"""DeepSeek-V4's attention over a window and compressed entries."""

from deepseek._binding.missing import guard
from deepseek.attention.compressed.hub_names import attention_state_from_hub
from deepseek.attention.compressed.module import CompressedAttention

__all__ = ["CompressedAttention", "attention_state_from_hub"]

guard(__name__)
