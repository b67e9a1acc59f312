"""These tests need PyTorch, the oracle; without it they are not collected."""

import sys
from typing import Any

import pytest

pytest.importorskip("torch")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    runner = sys.modules.get("sample_runner")
    if runner is not None and runner.TOTALS.run:
        terminalreporter.section("torch's op database")
        for line in runner.TOTALS.lines():
            terminalreporter.write_line(line)
