"""One thread for all tests of the library."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small convolutions on shared cores: more threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
