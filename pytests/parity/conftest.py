"""These tests need PyTorch, the oracle; without it they are not collected."""

import pytest

pytest.importorskip("torch")
