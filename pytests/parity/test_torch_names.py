"""The tables of PyTorch's names are those of the torch that is installed; their entries are what errors ask for."""

from __future__ import annotations

import make_torch_names
import pytest
from deepseek._binding import nearest, torch_names


def test_the_tables_are_up_to_date() -> None:
    for name, text in make_torch_names.generate().items():
        written = (make_torch_names.TABLES / name).read_text(encoding="utf-8")
        assert written == text, "run `python pytests/parity/make_torch_names.py`"


@pytest.mark.parametrize("owner", torch_names.NAMES)
def test_every_name_is_torchs(owner: str) -> None:
    value = make_torch_names.owners()[owner]
    for name in torch_names.NAMES[owner].split():
        assert nearest.is_torchs(owner, name) and (not owner or not name.startswith("_"))  # torch._dynamo
        assert hasattr(value, name) or not isinstance(value, type)


def test_every_method_of_torchs_tensor_exists_or_says_so() -> None:
    import deepseek
    import torch

    for name in dir(torch.Tensor):
        if not name.startswith("_") and not hasattr(deepseek.Tensor, name):
            with pytest.raises(AttributeError, match=rf"deepseek.Tensor.{name}: not implemented yet"):
                getattr(deepseek.ones(1), name)
