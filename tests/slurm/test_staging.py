"""Data on a node's scratch: copied once, whole, and never in the way of training."""

import json
import multiprocessing
import shutil

import pytest

from slurm import staging
from slurm.staging import stage
from xnets.data import open_data


@pytest.fixture
def data(tmp_path, digits):
    """A folder of data sets with digits in it."""
    shutil.copytree(digits.folder, tmp_path / "data" / "digits")
    return tmp_path / "data"


@pytest.fixture
def copies(monkeypatch):
    """What was copied, one entry each time."""
    found, copytree = [], shutil.copytree

    def copy(source, target, **options):
        found.append(source)
        return copytree(source, target, **options)

    monkeypatch.setattr("shutil.copytree", copy)
    return found


def assert_whole(folder, data):
    staged = open_data(folder / "digits")
    assert staged.digest == open_data(data / "digits").digest
    assert len(staged.split("train")) == 1297
    assert len(staged.split("test")) == 500
    assert not list(folder.glob(".*.half"))


def test_it_is_copied_once(data, tmp_path, copies):
    folder = stage(data, "digits", str(tmp_path / "scratch"))
    assert folder.is_relative_to(tmp_path / "scratch")
    assert_whole(folder, data)
    assert stage(data, "digits", str(tmp_path / "scratch")) == folder
    assert len(copies) == 1


@pytest.mark.parametrize("damage", ["manifest", "missing", "short", "changed"])
def test_a_damaged_copy_is_made_anew(data, tmp_path, copies, damage):
    folder = stage(data, "digits", str(tmp_path / "scratch"))
    path = folder / "digits" / ("manifest.json" if damage == "manifest" else "test.u8")
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    if damage == "missing":
        path.unlink()  # scratch cleaners take old files one by one
    else:
        path.write_bytes(content[: 10 if damage == "short" else None])
    assert stage(data, "digits", str(tmp_path / "scratch")) == folder
    assert_whole(folder, data)
    assert len(copies) == 2


def test_what_an_interrupted_copy_left_is_replaced(data, tmp_path):
    folder = stage(data, "digits", str(tmp_path / "scratch"))
    (folder / "digits").rename(folder / ".digits.half")
    (folder / ".digits.half" / "test.u8").unlink()
    assert stage(data, "digits", str(tmp_path / "scratch")) == folder
    assert_whole(folder, data)


def test_other_data_go_elsewhere(data, tmp_path):
    first = stage(data, "digits", str(tmp_path / "scratch"))
    path = data / "digits" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mean": [0.1, 0.2, 0.3]}))
    second = stage(data, "digits", str(tmp_path / "scratch"))
    assert second != first
    assert open_data(second / "digits").manifest["mean"] == [0.1, 0.2, 0.3]
    assert open_data(first / "digits").manifest["mean"] != [0.1, 0.2, 0.3]


def test_variables_and_home_are_expanded(data, tmp_path, monkeypatch):
    monkeypatch.setenv("FAST", str(tmp_path / "fast"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert stage(data, "digits", "$FAST/x").is_relative_to(tmp_path / "fast" / "x")
    assert stage(data, "digits", "~/x").is_relative_to(tmp_path / "home" / "x")


def assert_falls_back(data, scratch, capsys, reason):
    assert stage(data, "digits", str(scratch)) == data
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"digits is read from {data}: ")
    assert line.endswith(f"{reason}).")


def test_a_full_scratch(data, tmp_path, monkeypatch, capsys):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copystat", full)  # copytree collects such errors in one of its own
        assert_falls_back(data, tmp_path / "scratch", capsys, "No space left on device")
    assert not list((tmp_path / "scratch").rglob("*.u8"))
    assert_whole(stage(data, "digits", str(tmp_path / "scratch")), data)


@pytest.mark.parametrize(
    ("scratch", "reason"),
    [
        ("/proc/nowhere", "No such file or directory"),
        ("/dev/null", "Not a directory"),
        ("$NOT_SET_ON_THIS_NODE/x", "it is no absolute folder on this node"),
        ("~nobody-of-this-name", "it is no absolute folder on this node"),
    ],
)
def test_a_scratch_that_is_none(data, tmp_path, monkeypatch, capsys, scratch, reason):
    monkeypatch.chdir(tmp_path)
    assert_falls_back(data, scratch, capsys, reason)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def _stage(data, scratch, start, told):
    copytree = shutil.copytree
    staging.shutil.copytree = lambda *paths: told.put("copied") or copytree(*paths)
    start.wait()
    told.put(str(stage(data, "digits", scratch)))


def test_jobs_of_a_node_that_start_together_copy_once(data, tmp_path):
    context = multiprocessing.get_context("fork")
    told, start = context.Queue(), context.Event()
    jobs = [context.Process(target=_stage, args=(data, str(tmp_path / "scratch"), start, told)) for _ in range(4)]
    for job in jobs:
        job.start()
    start.set()
    said = [told.get(timeout=30) for _ in range(5)]
    for job in jobs:
        job.join()
    assert said.count("copied") == 1
    assert len(set(said) - {"copied"}) == 1
