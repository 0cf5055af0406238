"""Bundles of limited size: cut into parts that stand alone, or into volumes that do not."""

import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from experiments import slices
from experiments.bundles import volumes
from experiments.bundles.exporting import NothingToExport, export_runs
from experiments.bundles.format import check_bundle
from experiments.bundles.importing import import_bundles
from experiments.bundles.joining import joined
from experiments.bundles.packings import files_of_packings
from tests.experiments.bundles.conftest import RUNS, begin, contents, finish
from xnets.errors import XNetsError


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_parts_are_bundles_none_larger_than_asked(tmp_path, there, here, suffix):
    generator = torch.Generator().manual_seed(0)
    finish(there, RUNS[3])
    for run in RUNS[:3]:  # not to be compressed
        noise = torch.randint(256, (100_000,), generator=generator, dtype=torch.uint8)
        (there.folder(run) / "model.pt").write_bytes(noise.numpy().tobytes())
    for mib, count in ((0.13, 4), (0.25, 2), (1.0, 1)):
        parts = export_runs(there, tmp_path / f"runs{suffix}", RUNS, models=True, max_mib=mib).files
        assert [path.name for path in parts] == [f"runs-{i + 1}{suffix}" for i in range(len(parts))]
        assert all(path.stat().st_size <= mib * 2**20 for path in parts)
        assert [run.fingerprint for run in sorted(RUNS, key=lambda run: run.fingerprint)] == [
            packed.run.fingerprint for path in parts for packed in check_bundle(path)
        ]
        assert len(parts) <= count
    parts = export_runs(there, tmp_path / f"runs{suffix}", RUNS, models=True, max_mib=0.13).files
    assert len(parts) >= 3
    assert len(import_bundles(here, parts[::-1]).new) == 4
    assert contents(here) == contents(there)
    with pytest.raises(XNetsError, match=r"X-VGG16-1--.* alone does not fit into 0\.05 MiB: say --max-mib") as refusal:
        export_runs(there, tmp_path / f"less{suffix}", RUNS, models=True, max_mib=0.05)
    advice = float(str(refusal.value).split("--max-mib ")[1].split()[0])
    assert export_runs(there, tmp_path / f"less{suffix}", RUNS, models=True, max_mib=advice).finished == 4


def test_what_does_not_fit_into_so_many_files_is_left_out(tmp_path, there):
    """Finished runs come before checkpoints, in the order that is asked for."""
    for run, mib in ((RUNS[0], 0.3), (RUNS[1], 0.7)):
        (there.folder(run) / "result.json").unlink()
        (there.folder(run) / "checkpoint.pt").write_bytes(bytes(int(mib * 2**20)))
    finish(there, RUNS[3])

    def packed(**limits):
        done = export_runs(there, tmp_path / "runs.tar", RUNS, models=True, unfinished=True, max_mib=0.5, **limits)
        assert all(path.stat().st_size <= 0.5 * 2**20 for path in done.files)
        return done.finished, done.under_way, len(done.files), done.left_out

    finished, under_way, files, left_out = packed(max_files=2)
    assert (finished, under_way, files) == (2, 1, 1)
    no_room = "files of 0.5 MiB have no room left for it: say --max-files"
    assert left_out == [f"{RUNS[1].label}: 2 {no_room} 3 or more."]
    assert packed(max_files=3)[:2] == (2, 2), "as it says"
    (there.folder(RUNS[0]) / "checkpoint.pt").write_bytes(bytes(int(0.47 * 2**20)))
    assert packed(max_files=3)[:3] == (2, 1, 3)
    finished, under_way, files, left_out = packed(max_files=1)
    assert (finished, under_way, files) == (2, 0, 1)
    assert left_out[0] == f"{RUNS[0].label}: 1 {no_room} 4 or more.", "no other run's checkpoint takes its room"


def test_a_checkpoint_larger_than_a_file_is_cut_into_volumes(tmp_path, there, here):
    (there.folder(RUNS[1]) / "result.json").unlink()
    checkpoint = there.folder(RUNS[1]) / "checkpoint.pt"
    begin(there, RUNS[1], 1, 30, random.Random(0).randbytes(int(1.2 * 2**20)))

    def packed():
        done = export_runs(there, tmp_path / "runs.tar", RUNS, unfinished=True, max_mib=0.5, max_files=8)
        assert (done.finished, done.under_way, done.left_out) == (2, 1, [])
        assert all(path.stat().st_size <= 0.5 * 2**20 for path in done.files)
        return done.files

    files = packed()
    volumes = [path for path in files if "of" in path.name]
    bundle, own = volumes[0].with_name(volumes[0].name[:-14]), volumes[0].name[-13:-5]
    assert [path.name for path in volumes] == [f"{bundle.name}.{own}.{place}of3" for place in (1, 2, 3)]
    before = contents(here)
    with pytest.raises(XNetsError, match=rf"{bundle.name} is cut into 3 files: name {own}.1of3, {own}.3of3 too"):
        import_bundles(here, [path for path in files if path not in (volumes[0], volumes[2])])
    whole = volumes[1].read_bytes()
    volumes[1].write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    with pytest.raises(XNetsError, match=f"{bundle} is damaged: copy it here again"):
        import_bundles(here, files)
    assert contents(here) == before
    volumes[1].write_bytes(whole)
    done = import_bundles(here, files[::-1])
    assert (len(done.new), len(done.under_way)) == (2, 1)
    assert (here.folder(RUNS[1]) / "checkpoint.pt").read_bytes() == checkpoint.read_bytes()
    before = contents(here)
    assert import_bundles(here, files).new == []
    assert contents(here) == before, "nothing that was joined is left there"
    begin(there, RUNS[1], 2, 30, random.Random(1).randbytes(int(1.2 * 2**20)))
    new = [path.name for path in packed() if "of" in path.name]
    assert {path.name for path in tmp_path.glob("*of3")} == set(new) != {path.name for path in volumes}
    checkpoint.write_bytes(b"much smaller")
    assert not any("of" in path.name for path in packed())


def test_what_is_said_of_a_joined_bundle_names_its_files_whatever_the_error(tmp_path, there):
    """An error that is made of more than its sentence too."""
    files = export_runs(there, tmp_path / "runs.tar", RUNS, models=True, max_mib=0.02, max_files=9).files
    assert any("of" in path.name for path in files)
    with pytest.raises(NothingToExport) as said, joined(files, tmp_path) as whole:
        raise NothingToExport(f"{whole[-1]} is empty.", ["a run"])
    assert (str(said.value), said.value.left_out) == (f"{files[-1].parent / files[-1].name[:-14]} is empty.", ["a run"])


def test_volumes_half_replaced_are_the_old_bundle(tmp_path, there, here, monkeypatch):
    """Killed between two volumes: each set is told by its own letters, and the whole one counts."""
    (there.folder(RUNS[1]) / "result.json").unlink()

    def packed(epochs):
        begin(there, RUNS[1], epochs, 0, random.Random(epochs).randbytes(int(1.2 * 2**20)))
        return export_runs(there, tmp_path / "runs.tar", RUNS, unfinished=True, max_mib=0.5, max_files=8).files

    class Killed(BaseException):
        pass

    def killed_at_the_second(source, target, replace=os.replace):
        if ".2of3" in str(target) and target.parent == tmp_path:
            raise Killed
        replace(source, target)

    packed(1)
    monkeypatch.setattr(volumes.os, "replace", killed_at_the_second)
    with pytest.raises(Killed):
        packed(2)
    monkeypatch.undo()
    left = sorted(tmp_path.glob("runs-*"))
    assert sum("of3" in path.name for path in left) == 4
    assert len(import_bundles(here, left).under_way) == 1
    assert len(here.history(RUNS[1])) == 1
    packed(2)
    left = sorted(tmp_path.glob("runs-*"))
    assert sum("of3" in path.name for path in left) == 3, "what was left of the kill is gone"
    import_bundles(here, left)
    assert len(here.history(RUNS[1])) == 2


@pytest.fixture
def packed(tmp_path, there):
    """packed(n): packs the campaign once more, with a checkpoint of n epochs that makes three volumes."""
    (there.folder(RUNS[1]) / "result.json").unlink()

    def pack(epochs):
        begin(there, RUNS[1], epochs, 0, random.Random(epochs).randbytes(int(1.2 * 2**20)))
        folder = slices.Folder(out := tmp_path / "out", 0.5, 8, there=files_of_packings(out))
        files = folder.pack(there, RUNS, live=False).files
        assert [path.name[-5:] for path in files] == [".1of3", ".2of3", ".3of3"]
        return files

    return pack


@pytest.mark.parametrize("killed_at", range(9))
def test_a_packing_half_replaced_by_the_next_one_is_imported(tmp_path, here, packed, monkeypatch, capsys, killed_at):
    """A slice that is killed between any two files leaves all of one packing, and import takes it."""

    class Killed(BaseException):
        pass

    moves = 0

    def killed(move):
        def moved(path, *to, **how):
            nonlocal moves
            if path.parent == tmp_path / "out" or (to and to[0].parent == tmp_path / "out"):
                moves += 1
                if moves > killed_at:
                    raise Killed
            return move(path, *to, **how)

        return moved

    packed(1)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, killed(getattr(Path, name)))
    with pytest.raises(Killed):
        packed(2)
    monkeypatch.undo()
    done = import_bundles(here, sorted((tmp_path / "out").glob("campaign-*")))
    assert (len(done.new), len(here.history(RUNS[1]))) == (2, 1 if killed_at < 4 else 2)
    assert ("left out" in capsys.readouterr().err) == (killed_at in (1, 2, 3, 7, 8)), "whatever is left out is said"
    assert packed(3) == sorted((tmp_path / "out").glob("campaign-*")), "what was left of the kill is gone"


def copied(files, to):
    """As gathered on the machine that keeps things."""
    to.mkdir(exist_ok=True)
    return [Path(shutil.copy(path, to)) for path in files]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_volume_lost_on_the_way_does_not_set_a_run_back(tmp_path, here, packed, lost):
    """Of the newest packing each is wanted, though an older packing is there whole."""
    older = copied(packed(1), tmp_path / "gathered")
    newer = copied(packed(2), tmp_path / "gathered")
    missing = newer.pop(lost)
    with pytest.raises(XNetsError, match=rf"campaign-2-1\.tar is cut into 3 files: name {missing.name[-13:]} too"):
        import_bundles(here, [*older, *newer])
    assert contents(here) == {}
    import_bundles(here, older)  # "or none of them"
    assert len(here.history(RUNS[1])) == 1


def test_a_newer_packing_excuses_only_what_a_kill_leaves(tmp_path, here, packed):
    """The first volume goes first: one that lacks another was damaged on the way, and may be of another machine."""
    older, newer = copied(packed(1), tmp_path / "gathered"), copied(packed(2), tmp_path / "gathered")
    for lost in (1, 2):
        with pytest.raises(XNetsError, match=rf"campaign-1-1\.tar is cut .*{older[lost].name[-13:]} too"):
            import_bundles(here, [*older[:lost], *older[lost + 1 :], *newer])
    elsewhere = copied(newer, tmp_path / "another folder")
    with pytest.raises(XNetsError, match=r"campaign-1-1\.tar is cut"):
        import_bundles(here, [*older[1:], *elsewhere])
    with pytest.raises(XNetsError, match="is cut"):
        import_bundles(here, [*older[1:], *newer[1:]])
    import_bundles(here, [*older[1:], *newer])
    assert len(here.history(RUNS[1])) == 2


def test_two_machines_that_gave_a_packing_the_same_number(tmp_path, here, packed):
    """Neither took the other's place: both are wanted whole."""
    ours = copied(packed(1), tmp_path / "gathered")
    shutil.rmtree(tmp_path / "out")
    theirs = copied(packed(2), tmp_path / "gathered")
    with pytest.raises(XNetsError, match=r"campaign-1-1\.tar is cut"):
        import_bundles(here, [*ours, *theirs[1:]])
    import_bundles(here, [*ours, *theirs])
    assert len(here.history(RUNS[1])) == 2
