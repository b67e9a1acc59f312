"""Checks for tests: ``assert_close`` for values, ``gradcheck`` and ``gradgradcheck`` for derivatives.

Derivatives are compared with central differences, so inputs should be float64.
"""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek.testing._close import assert_close
from deepseek.testing._gradcheck import GradcheckError, gradcheck, gradgradcheck

__all__ = ["GradcheckError", "assert_close", "gradcheck", "gradgradcheck"]

guard(__name__)
