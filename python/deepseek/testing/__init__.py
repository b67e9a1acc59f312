"""Checks for tests: ``assert_close`` for values, ``gradcheck`` and ``gradgradcheck`` for derivatives.

Derivatives are compared with central differences, so inputs should be float64.
"""

from __future__ import annotations

from typing import Any

from deepseek.testing._close import assert_close
from deepseek.testing._gradcheck import GradcheckError, gradcheck, gradgradcheck
from deepseek.utils._nearest import missing_attribute

__all__ = ["GradcheckError", "assert_close", "gradcheck", "gradgradcheck"]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
