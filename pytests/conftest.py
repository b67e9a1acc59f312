"""Settings shared by all tests. This folder is on sys.path, so tests import `opinfo` from here."""

from importlib.util import find_spec

import pytest
from hypothesis import settings

settings.register_profile("deepseek", deadline=None, print_blob=True)
settings.load_profile("deepseek")

HAS_TORCH = find_spec("torch") is not None
collect_ignore = [] if HAS_TORCH else ["parity"]


def pytest_report_header() -> str:
    return "parity tests: " + ("collected" if HAS_TORCH else "not collected, torch is not installed (`make parity`)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "parity":  # the folder of the tests, not one further up
            item.add_marker(pytest.mark.parity)
