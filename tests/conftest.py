"""What holds for all tests."""

import inspect
import os
from importlib import import_module

import pytest

# The models are tiny: one thread computes them fastest, and is not slowed a hundred times by a busy second core.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def masks_without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees whom is said as users have it, without the checks of types: these cannot be compiled."""
    attention, trees = (import_module(f"prefloop.policy.{name}") for name in ("tree_attention", "trees"))
    for owner, name in ((attention, "may_see"), (trees.Standing, "at")):
        monkeypatch.setattr(owner, name, inspect.unwrap(getattr(owner, name)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: what is left when one of several workers has nothing to do is short then."""
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("recipes", "crash", "long")))
