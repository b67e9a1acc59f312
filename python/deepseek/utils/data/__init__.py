"""Data sets, samplers and the loader, with torch's names and defaults."""

from __future__ import annotations

from typing import Any

from deepseek.utils._nearest import missing_attribute
from deepseek.utils.data._collate import default_collate, default_convert
from deepseek.utils.data._dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from deepseek.utils.data._loader import DataLoader
from deepseek.utils.data._sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)

__all__ = [
    "BatchSampler",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "default_collate",
    "default_convert",
    "random_split",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
