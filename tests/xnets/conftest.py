"""One thread and one kernel for all tests of the library that do not ask for another."""

import pytest
import torch

from xnets.layers import kernels


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small convolutions on shared cores: more threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def dense_kernel(tmp_path, monkeypatch):
    """Layers that name no kernel use the dense one; nothing is measured, and nothing kept outside of the test."""
    monkeypatch.setenv("XNETS_CACHE", str(tmp_path / "cache"))
    with kernels("dense"):
        yield
