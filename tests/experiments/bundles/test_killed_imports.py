"""An import that is killed at any moment: started again it ends complete, and the next one clears what it left."""

import subprocess
import sys

import pytest

from experiments.bundles.exporting import export_runs
from experiments.bundles.importing import import_bundles
from tests.experiments.bundles.conftest import RUNS, begin, contents, files_of

KILLED = """
import os, signal, sys
from pathlib import Path
from experiments.bundles.importing import import_bundles
from experiments.store import Store
left = int(sys.argv[2])
def counted(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
os.replace, os.unlink = counted(os.replace), counted(os.unlink)
import_bundles(Store(Path(sys.argv[1])), [Path(name) for name in sys.argv[3:]])
"""


def import_and_be_killed(store, files, n, repository):
    """Killed before the n-th file appears or goes, counted from 0, unless it is done before; its exit status."""
    command = [sys.executable, "-c", KILLED, str(store.root), str(n), *map(str, files)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert ended.returncode in (0, -9), ended.stderr
    return ended.returncode


def test_a_killed_import_started_again_ends_complete(tmp_path, there, here, repository):
    file = tmp_path / "runs.tar"
    export_runs(there, file, RUNS, models=True)
    here.write_failure(RUNS[0], "an attempt")
    (here.folder(RUNS[0]) / "checkpoint.pt").write_text("an attempt")
    kills = 0
    for n in range(1, 40, 2):  # each goes on where the one before was killed
        status = import_and_be_killed(here, [file], n, repository)
        for run in RUNS[:3]:
            if here.result(run):
                assert files_of(here, run) == files_of(there, run)
        if status == 0:
            break
        kills += 1
    assert kills >= 5
    assert contents(here) == contents(there)


@pytest.mark.parametrize(("n", "left"), [(1, ".checkpoint.arriving."), (4, "checkpoint.arriving")])
def test_what_a_killed_import_left_of_a_checkpoint_is_cleared_by_the_next(tmp_path, there, here, repository, n, left):
    """Whatever that one imports: nobody may ever bring this run again."""
    begin(there, RUNS[3], 1, 30)
    export_runs(there, tmp_path / "begun.tar", RUNS[3:], unfinished=True)
    export_runs(there, tmp_path / "others.tar", RUNS[:3])
    assert import_and_be_killed(here, [tmp_path / "begun.tar"], n, repository) == -9

    def arriving():
        return [path.name for path in here.folder(RUNS[3]).iterdir() if "arriving" in path.name]

    assert [name.startswith(left) for name in arriving()] == [True]
    import_bundles(here, [tmp_path / "others.tar"])
    assert arriving() == []
    assert import_bundles(here, [tmp_path / "begun.tar"]).under_way == [RUNS[3].label]
    assert files_of(here, RUNS[3]) == files_of(there, RUNS[3])


def test_what_a_killed_import_left_of_a_finished_run_is_cleared_by_the_next(tmp_path, there, here, repository):
    """Its network was being added; files that a job may be writing beside it stay."""
    export_runs(there, tmp_path / "runs.tar", RUNS[:1])
    export_runs(there, tmp_path / "models.tar", RUNS[:1], models=True)
    export_runs(there, tmp_path / "others.tar", RUNS[1:2])
    import_bundles(here, [tmp_path / "runs.tar"])
    before = contents(here)
    assert import_and_be_killed(here, [tmp_path / "models.tar"], 1, repository) == -9
    (left,) = contents(here).keys() - before.keys()
    assert left.startswith(f"{RUNS[0].fingerprint}/.model.pt.")
    jobs = here.folder(RUNS[0]) / ".model.pt.a1b2c3d4"
    jobs.write_text("of a job")
    import_bundles(here, [tmp_path / "others.tar"])
    assert files_of(here, RUNS[0]).keys() == {*before, f"{RUNS[0].fingerprint}/{jobs.name}"}


@pytest.mark.parametrize("n", [1, 2])
def test_volumes_that_a_killed_import_had_joined_are_cleared_by_the_next(tmp_path, there, here, repository, n):
    """Killed while it joined them, and after."""
    begin(there, RUNS[3], 1, 30, bytes(2**20))
    files = export_runs(there, tmp_path / "begun.tar", RUNS[3:], unfinished=True, max_mib=0.5, max_files=8).files
    assert len(files) > 1
    export_runs(there, tmp_path / "others.tar", RUNS[:1])
    assert import_and_be_killed(here, files, n, repository) == -9
    assert len(list(here.root.glob(".bundle-*"))) == 1
    import_bundles(here, [tmp_path / "others.tar"])
    assert list(here.root.glob(".bundle-*")) == []
    assert import_bundles(here, files).under_way == [RUNS[3].label]
