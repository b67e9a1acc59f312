"""DeepSeek-V4's attention over a window and compressed entries."""

from deepseek._binding.missing import guard
from deepseek._binding.public import gather
from deepseek.attention.compressed.hub_names import attention_state_from_hub as attention_state_from_hub
from deepseek.attention.compressed.module import CompressedAttention as CompressedAttention

gather(__name__)
guard(__name__)
