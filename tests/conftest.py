"""Fixtures that several folders of tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One thread: two test processes share two cores, and CPU results are the same to the last bit at one thread count.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("ours", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")

REPOSITORY = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, so that none of them is left to one process at the end (with --no-loadscope-reorder)."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's top folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The embedded data, packed."""
    from xnets.data import prepare

    return prepare("digits", tmp_path_factory.mktemp("data") / "digits")
