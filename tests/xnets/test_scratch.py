"""Memory that kernels need while they run is used again."""

import pytest
import torch

from xnets.layers.direct import scratch as module
from xnets.layers.direct.scratch import LARGE, scratch


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(module, "_kept", [])
    monkeypatch.setattr(module, "_used", 0)
    monkeypatch.setattr(module, "_most", 0)


def place_of(floats: int) -> int:
    with scratch(floats) as address:
        return address


def test_a_room_is_used_again_by_smaller_ones_and_stays():
    large = place_of(LARGE)
    assert [place_of(100), place_of(LARGE)] == [large, large]


def test_the_smallest_that_fits_is_taken():
    with scratch(LARGE) as large, scratch(100) as small:
        pass
    with scratch(50) as first, scratch(50) as second:
        assert (first, second) == (small, large)


def test_what_is_too_large_is_given_back_unless_many_threads_share_it(monkeypatch):
    place_of(LARGE + 1)
    assert not module._kept
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert place_of(LARGE + 1) == place_of(LARGE + 1)


def test_no_more_than_were_in_use_at_once_even_after_an_exception():
    with pytest.raises(ZeroDivisionError), scratch(100), scratch(200):
        raise ZeroDivisionError
    assert [room.numel() for room in module._kept] == [100, 200]
    with scratch(300):
        pass
    assert len(module._kept) == 2
