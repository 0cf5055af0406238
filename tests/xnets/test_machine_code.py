"""Machine code is kept on disk, and nothing is run that another user or a damaged disk could have put there."""

import os
import subprocess
import sys

import pytest

from tests.xnets.direct_cases import needs_llvmlite
from xnets.layers.direct.machine_code import kept

STEP = """
import torch, xnets
from xnets.layers.direct import jit
if {forbidden}:
    jit._machine_code = lambda *_: 1 / 0
torch.manual_seed(0)
torch.set_num_threads({threads})
layer = xnets.ExpanderConv2d(64, 64, 3, padding=1, compression=4, kernel="direct")
x = torch.randn(8, 64, 16, 16, requires_grad=True)
y = layer(x)
y.square().sum().backward()
print(*(float(t.sum()) for t in (y, x.grad, layer.weight.grad)))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where it is kept."""
    monkeypatch.setenv("XNETS_CACHE", str(tmp_path))
    return tmp_path / "kernels"


def made():
    """How often code was made, and the code."""
    calls = []
    return calls, lambda: calls.append(1) or b"code"


def step(threads, forbidden=False):
    """What a training step of another process prints."""
    code = STEP.format(threads=threads, forbidden=forbidden)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def contents(folder):
    """Names and contents of its files."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@needs_llvmlite
def test_another_process_compiles_nothing(folder):
    first, found = step(1), contents(folder)
    assert found
    assert step(1, forbidden=True) == first
    assert contents(folder) == found


@needs_llvmlite
def test_what_holds_addresses_of_a_process_is_not_kept(folder):
    first, found = step(2), contents(folder)
    assert step(2) == first
    assert contents(folder) == found


def test_what_was_made_is_read(folder):
    calls, make = made()
    assert [kept("key", make) for _ in range(3)] == [b"code"] * 3
    assert kept("other", make) == b"code"
    assert len(calls) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["key", "other"]


@pytest.mark.parametrize("damage", [lambda c: c[:-1] + b"E", lambda c: c[:20], lambda c: b"", lambda c: b"x" + c])
def test_what_is_damaged_is_made_anew(folder, damage):
    calls, make = made()
    kept("key", make)
    whole = (folder / "key").read_bytes()
    (folder / "key").write_bytes(damage(whole))
    assert kept("key", make) == b"code"
    assert len(calls) == 2
    assert (folder / "key").read_bytes() == whole


def test_another_kernels_code_is_not_run(folder):
    kept("other", lambda: b"other")
    (folder / "other").rename(folder / "key")
    assert kept("key", lambda: b"code") == b"code"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users have no numbers here")
@pytest.mark.parametrize("which", ["folder", "file", "link", "linked folder"])
def test_what_others_can_write_is_not_run(folder, tmp_path, which):
    kept("key", lambda: b"theirs")
    if which == "folder":
        folder.chmod(0o777)
    elif which == "file":
        (folder / "key").chmod(0o664)
    else:  # a link's target may be exchanged
        path = folder / "key" if which == "link" else folder
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    assert kept("key", lambda: b"ours") == b"ours"


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root gives files away")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_another_user_owns_is_not_run(folder, which):
    kept("key", lambda: b"theirs")
    os.chown(folder if which == "folder" else folder / "key", 12345, 12345)
    assert kept("key", lambda: b"ours") == b"ours"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
@pytest.mark.parametrize("make", ["mkdir", "mkfifo"])
def test_what_is_no_file_is_not_waited_for_nor_left_open(folder, make):
    kept("other", lambda: b"code")
    getattr(os, make)(folder / "key")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        assert kept("key", lambda: b"code") == b"code"
        if make == "mkfifo":  # it was replaced by a file
            (folder / "key").unlink()
            os.mkfifo(folder / "key")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_disk_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XNETS_CACHE", str(tmp_path / "file" / "below"))
    assert kept("key", lambda: b"code") == b"code"


def test_a_full_disk_leaves_nothing_half_written(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert kept("key", lambda: b"code") == b"code"
    assert list(folder.iterdir()) == []
