"""One thread and one kernel for all tests of the library that ask for no other; asserts of helpers shown in full."""

import pytest
import torch

from xnets.layers import kernels

# failed asserts there show their values, as those in test files do
pytest.register_assert_rewrite("tests.xnets.direct_cases", "tests.xnets.inference_cases")


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
