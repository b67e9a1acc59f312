"""Helpers on parameters and gradients."""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek.nn.utils._clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from deepseek.nn.utils._vector import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]

guard(__name__)
