"""What was computed elsewhere counts here, and nothing that is here is overwritten."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments import settings as settings_module
from experiments import stages
from experiments.bundles import importing
from experiments.bundles.exporting import export_runs
from experiments.bundles.format import check_bundle
from experiments.bundles.importing import import_bundles
from experiments.execute import execute
from experiments.store import Store
from experiments.store_cli import add_store
from tests.experiments.bundles.conftest import RUNS, begin, contents, files_of, finish, read_tar
from xnets.data import open_data
from xnets.errors import XNetsError
from xnets.training.loop import Stopped
from xnets.training.loop import train as train_run


@pytest.mark.parametrize("name", ["runs.tar", "runs.tar.gz", "runs.tgz"])
def test_finished_runs_arrive_and_the_same_runs_make_the_same_bundle(tmp_path, there, here, name):
    file = tmp_path / "out" / name
    done = export_runs(there, file, RUNS)
    assert (done.files, done.finished, done.under_way, done.left_out) == ([file], 3, 0, [])
    assert next(iter(read_tar(file))) == "manifest.json"
    assert sorted(import_bundles(here, [file]).new) == sorted(run.label for run in RUNS[:3])
    assert contents(here) == {name: data for name, data in contents(there).items() if not name.endswith("model.pt")}
    first = file.read_bytes()
    export_runs(here, file, RUNS)
    assert file.read_bytes() == first, "the store, the time and the machine do not matter"
    again = import_bundles(here, [file, file])
    assert (again.new, len(set(again.known)), again.conflicts) == ([], 3, [])


def test_models_travel_when_asked_for_or_needed(tmp_path, there, here):
    file = tmp_path / "runs.tar"
    finish(there, RUNS[3], evaluated=False)
    export_runs(there, file, RUNS)
    import_bundles(here, [file])
    assert [(here.folder(run) / "model.pt").exists() for run in RUNS] == [False, False, False, True]
    there.write_evaluation(RUNS[3], {"top1": 90.0, "n": 500})
    export_runs(there, file, RUNS, models=True)
    assert len(import_bundles(here, [file]).known) == 4
    assert contents(here) == contents(there), "evaluation and models were added"
    (there.folder(RUNS[3]) / "model.pt").unlink()
    (there.folder(RUNS[3]) / "evaluation.json").unlink()
    done = export_runs(there, file, RUNS)
    assert done.finished == 3
    assert "neither an evaluation nor the model.pt" in done.left_out[0]


def test_all_takes_what_the_plan_does_not_name(tmp_path, there):
    export_runs(there, tmp_path / "one.tar", RUNS[1:2])
    assert [packed.run for packed in check_bundle(tmp_path / "one.tar")] == RUNS[1:2]
    (there.root / "notes").mkdir()
    (there.root / "notes" / "result.json").write_text("mine")
    path = there.folder(RUNS[2]) / "result.json"
    path.write_text(path.read_text().replace('"engine": 1', '"engine": 0'))
    done = export_runs(there, tmp_path / "all.tar", [], everything=True)
    assert done.finished == 2
    assert "engine 0" in done.left_out[0]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("runs.zip", {}, r"let it end in \.tar, \.tar\.gz or \.tgz"),
        (".tar", {}, "no name of a bundle"),
        ("runs.tar", {"planned": RUNS[3:]}, "Nothing to export: .*--all.*--unfinished"),
        ("runs.tar", {"max_mib": 0}, r"^--max-mib must be from 0\.001 to 1000000, not 0\.$"),
        ("runs.tar", {"max_mib": float("nan")}, r"must be from .*, not nan\.$"),
        ("runs.tar", {"max_mib": float("inf")}, r"must be from .*, not inf\.$"),
        ("runs.tgz", {"max_mib": 0.0001}, r"must be from .*, not 0\.0001\.$"),
        ("runs.tgz", {"max_mib": 0.001}, r"alone does not fit into 0\.001 MiB: say --max-mib 0\.1 or more"),
        ("mine.tar", {}, "is there and is no bundle"),
        ("folder.tar", {}, "is there and is no bundle"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, there, name, options, said):
    (tmp_path / "mine.tar").write_text("my thesis")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(XNetsError, match=said):
        export_runs(there, tmp_path / name, **{"planned": RUNS, **options})
    assert (tmp_path / "mine.tar").read_text() == "my thesis"
    assert not any(tmp_path.glob("runs*"))


@pytest.mark.parametrize("damage", ["", '{"fingerprint": "', "{}"])
@pytest.mark.parametrize("everything", [False, True])
def test_a_damaged_store_is_not_exported(tmp_path, there, damage, everything):
    (there.folder(RUNS[0]) / "result.json").write_text(damage)
    with pytest.raises(XNetsError, match=r"result\.json (is damaged|belongs to another run).*: delete it"):
        export_runs(there, tmp_path / "runs.tar", RUNS, everything=everything)


def test_a_conflict_is_reported_and_the_one_here_is_kept(tmp_path, there, here):
    finish(here, RUNS[0], top1=80.0, weights="b", host="here")
    finish(here, RUNS[1], host="here")
    before = contents(here)
    export_runs(there, tmp_path / "runs.tar", RUNS)
    done = import_bundles(here, [tmp_path / "runs.tar"])
    assert done.new == [RUNS[2].label]
    assert done.known == [RUNS[1].label], "another machine's provenance is no conflict"
    assert done.conflicts == [
        f"{RUNS[0].label}: here top-1 80.00 %, weights bbbbbbbbbbbb; in the bundle top-1 90.00 %, weights "
        "aaaaaaaaaaaa; the one here is kept."
    ]
    assert before.items() <= contents(here).items()


def test_a_result_replaces_an_attempt_with_all_its_remains(tmp_path, there, here):
    here.write_failure(RUNS[0], "it rained")
    with pytest.raises(Stopped), here.noted_attempt(RUNS[0], {"host": "here"}):
        raise Stopped
    for name in ("checkpoint.pt", "model.pt", "evaluation.json"):
        (here.folder(RUNS[0]) / name).write_text("of the attempt")
    export_runs(there, tmp_path / "runs.tar", RUNS[:1])
    import_bundles(here, [tmp_path / "runs.tar"])
    assert files_of(here, RUNS[0]).keys() == {
        f"{RUNS[0].fingerprint}/{name}"
        for name in ("attempts.jsonl", "evaluation.json", "history.jsonl", "result.json")
    }
    assert here.evaluation(RUNS[0]) == there.evaluation(RUNS[0])
    assert here.attempts(RUNS[0])[-1]["how"] == "stopped", "what was tried here stays on record"


def test_a_run_that_a_process_is_at_is_left_alone(tmp_path, there, here):
    export_runs(there, tmp_path / "runs.tar", RUNS)
    (here.root / "slurm" / "s").mkdir(parents=True)
    (here.root / "slurm" / "s" / "sweep.json").write_text("mine")
    with here.working_on(RUNS[0]):
        (here.folder(RUNS[0]) / "checkpoint.pt").write_text("of the process")
        lock = (here.folder(RUNS[0]) / ".lock").stat().st_ino
        before = contents(here)
        done = import_bundles(here, [tmp_path / "runs.tar"])
        assert done.held == [f"{RUNS[0].label}: a process is training or evaluating it; import again when it is done."]
        assert len(done.new) == 2
        assert before.items() <= contents(here).items()
        assert list(files_of(here, RUNS[0])) == [f"{RUNS[0].fingerprint}/checkpoint.pt"]
    assert import_bundles(here, [tmp_path / "runs.tar"]).new == [RUNS[0].label]
    assert (here.folder(RUNS[0]) / ".lock").stat().st_ino == lock, "whoever waits for this lock waits for the right one"
    (there.folder(RUNS[1]) / "result.json").unlink()
    (there.folder(RUNS[1]) / "checkpoint.pt").write_text("of the process")
    with there.working_on(RUNS[1]):
        done = export_runs(there, tmp_path / "runs.tar", RUNS, unfinished=True)
    assert (done.finished, done.under_way) == (2, 0)
    assert done.left_out == [f"{RUNS[1].label}: a process is training it; stop that, or export again when it is done."]


def test_a_bundle_that_changes_while_it_is_imported(tmp_path, there, here, monkeypatch):
    export_runs(there, tmp_path / "runs.tar", RUNS[:1])

    def check_and_replace(path):
        bundle = check_bundle(path)
        export_runs(there, path, RUNS[1:2])
        return bundle

    monkeypatch.setattr(importing, "check_bundle", check_and_replace)
    with pytest.raises(XNetsError, match="has changed since it was checked"):
        import_bundles(here, [tmp_path / "runs.tar"])
    assert contents(here) == {}


@pytest.mark.parametrize("mine", [(1, 30), (1, 31), (2, 0)])
def test_checkpoints_go_where_no_result_is_and_no_checkpoint_as_far(tmp_path, there, here, mine):
    for run in RUNS[:3]:
        (there.folder(run) / "result.json").unlink()
        begin(there, run, 1, 30)
    with pytest.raises(XNetsError, match="Nothing to export"):
        export_runs(there, tmp_path / "runs.tar", RUNS)
    done = export_runs(there, tmp_path / "runs.tar", RUNS, unfinished=True)
    assert (done.finished, done.under_way) == (0, 3)
    finish(here, RUNS[0])
    begin(here, RUNS[1], *mine)
    before = files_of(here, RUNS[1])
    done = import_bundles(here, [tmp_path / "runs.tar"])
    assert done.under_way == [RUNS[2].label]
    assert sorted(sentence.split(": it is ")[1] for sentence in done.kept) == [
        "finished here; the bundle's checkpoint is not needed.",
        "under way here too, and as far or further; that is kept.",
    ]
    assert not (here.folder(RUNS[0]) / "checkpoint.pt").exists()
    assert files_of(here, RUNS[1]) == before
    assert files_of(here, RUNS[2]) == {
        f"{RUNS[2].fingerprint}/{name}": (there.folder(RUNS[2]) / name).read_bytes()
        for name in ("checkpoint.pt", "history.jsonl")
    }
    with there.lock(), pytest.raises(XNetsError, match="already training"):
        export_runs(there, tmp_path / "runs.tar", RUNS, unfinished=True)


@pytest.mark.parametrize("mine", [(0, 400), (1, 29), None])
def test_a_checkpoint_that_has_gone_further_or_can_be_read_takes_the_place_of_the_one_here(tmp_path, there, here, mine):
    """Also within an epoch: a slice may be shorter than one."""
    (there.folder(RUNS[1]) / "result.json").unlink()
    begin(there, RUNS[1], 1, 30)
    export_runs(there, tmp_path / "runs.tar", RUNS[1:2], unfinished=True)
    begin(here, RUNS[1], *(mine or (1, 31)))
    if mine is None:
        (here.folder(RUNS[1]) / "checkpoint.pt").write_text("damaged")
    assert import_bundles(here, [tmp_path / "runs.tar"]).under_way == [RUNS[1].label]
    assert files_of(here, RUNS[1]) == {
        f"{RUNS[1].fingerprint}/{name}": (there.folder(RUNS[1]) / name).read_bytes()
        for name in ("checkpoint.pt", "history.jsonl")
    }


def test_checkpoints_of_runs_that_are_being_trained(tmp_path, there, here):
    (there.folder(RUNS[0]) / "result.json").unlink()
    begin(there, RUNS[0], 1, 30)
    with there.lock(), there.working_on(RUNS[0]):
        done = export_runs(there, tmp_path / "runs.tar", RUNS, unfinished=True, live=True)
    assert (done.finished, done.under_way, done.left_out) == (2, 1, [])
    import_bundles(here, [tmp_path / "runs.tar"])
    checkpoints = [(store.folder(RUNS[0]) / "checkpoint.pt").read_bytes() for store in (here, there)]
    assert checkpoints[0] == checkpoints[1]


def test_a_full_disk_and_a_store_in_use(tmp_path, there, here, monkeypatch):
    export_runs(there, tmp_path / "runs.tar", RUNS)
    with here.lock(), pytest.raises(XNetsError, match="already training"):
        import_bundles(here, [tmp_path / "runs.tar"])
    copied, real = [], importing._copy

    def full(reader, path):
        copied.append(path)
        if len(copied) == 3:
            raise XNetsError(f"Cannot write {path} (No space left on device)")
        real(reader, path)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_copy", full)
        with pytest.raises(XNetsError, match="No space left"):
            import_bundles(here, [tmp_path / "runs.tar"])
    assert sorted(here.is_done(run) for run in RUNS[:3]) == [False, False, True]
    done = import_bundles(here, [tmp_path / "runs.tar"])
    assert (len(done.new), len(done.known)) == (2, 1)


# --- with real runs ---


def no_executor(*args):
    raise AssertionError("something was left to train or evaluate")


def test_full_circle(tiny, tiny_plan, tmp_path, monkeypatch):
    """Trained there, counted here: all is done, and the results are the same bytes."""

    def outcome(plan):
        for stage in (stages.sample, stages.train, stages.evaluate):
            stage(plan)
        return {str(path): path.read_bytes() for path in plan.settings.results.rglob("*") if path.is_file()}

    first = outcome(tiny_plan)
    assert len(first) > 6
    tiny.results.rename(tmp_path / "results-there")
    export_runs(Store(tiny.store), tmp_path / "runs.tgz", tiny_plan.runs())
    elsewhere = Store(tmp_path / "elsewhere")
    assert len(import_bundles(elsewhere, [tmp_path / "runs.tgz"]).new) == 3
    monkeypatch.setattr(stages, "find_executor", lambda name: no_executor)
    assert outcome(replace(tiny_plan, settings=replace(tiny, store=elsewhere.root))) == first


def test_a_run_under_way_goes_on_elsewhere_to_the_same_end(tiny, tiny_plan, tmp_path):
    run, device = tiny_plan.runs()[0], torch.device("cpu")
    data, there, here = open_data(tiny.data_folder / run.dataset), Store(tiny.store), Store(tmp_path / "here")
    steps = iter(range(1000))
    there.folder(run).mkdir(parents=True)
    with pytest.raises(Stopped):
        train_run(run, data, there.folder(run), device, stop=lambda: next(steps) == 15)
    export_runs(there, tmp_path / "runs.tar", tiny_plan.runs(), unfinished=True)
    assert import_bundles(here, [tmp_path / "runs.tar"]).under_way == [run.label]
    execute("train", run, here, tiny.data_folder, device, 60)
    straight = train_run(run, data, tmp_path / "straight", device)
    assert here.result(run)["weights_sha256"] == straight["weights_sha256"]
    assert here.result(run)["epochs"] == straight["epochs"]


def test_the_command(tiny, tiny_plan, monkeypatch, capsys):
    parser = argparse.ArgumentParser("xnets")
    add_store(parser.add_subparsers())

    def call(*words):
        args = parser.parse_args(["store", *words])
        return args.run(args)

    first, second, _ = tiny_plan.runs()
    finish(Store(tiny.store), first)
    finish(Store(tiny.store), second)
    monkeypatch.setattr(settings_module, "read_settings", lambda: tiny)
    assert not call("export", "runs.tar")
    assert "2 finished runs of the 3 of scale tiny" in capsys.readouterr().out
    assert not call("export", "all.tar", "--all", "--models", "--max-mib", "1")
    assert Path("all-1.tar").exists()
    monkeypatch.setattr(settings_module, "read_settings", lambda: replace(tiny, store=Path("elsewhere")))
    assert call("import", "runs.tar", "all-1.tar") == 0
    assert capsys.readouterr().out.endswith("2 new, 2 already here, 0 in conflict; in elsewhere\n")
    finish(Store(Path("elsewhere")), first, top1=5.0)
    assert call("import", "runs.tar") == 1
    said = capsys.readouterr()
    assert said.out == "0 new, 1 already here, 1 in conflict; in elsewhere\n"
    assert said.err.startswith(f"conflict: {first.label}: here top-1 5.00 %")
    with pytest.raises(SystemExit):
        call("--help")
    assert "xnets store import runs.tar" in capsys.readouterr().out
