"""docs/published, from made-up runs: verdicts, coverage and figures of what is there, and nothing of what is not."""

import json
import math
import re

import pandas as pd
import pytest

from experiments.plan import plan_of
from experiments.published import publish, read_published
from experiments.remake import read_notes
from experiments.store import Store
from paper_figures.__main__ import main
from paper_figures.published import _remade, _runs
from tests.made_up import finish

LEVEL = {"random": 55.0, "grouped": 48.0, "grouped-shuffled": 54.5}


def finished(store, run):
    level = LEVEL.get(run.model.graph, 60.0) if run.model.parsed.kind == "X" else 60.0
    level -= 1.5 * (run.model.init == "sparse-aware") - 0.3 * run.train_seed
    finish(store, run, [level - 30 * math.exp(-epoch / 8) for epoch in range(run.protocol.epochs)])


@pytest.fixture
def partly(own, tmp_path):
    """At C = 8: three seeds of everything with the initialisation "torch", one of groups with another; no more."""
    store = Store(tmp_path / "store")
    cells = [cell for cell in plan_of(own, "cifar-short").cells if cell.study == "groups-or-expanders"]
    runs = [run for cell in cells for run in cell.runs("d" * 64)]
    runs = [run for run in runs if run.model.name in ("X-MobileNet-0.5-8", "MobileNet-0.5")]
    one = [r for r in runs if (r.model.graph, r.model.init, r.train_seed) == ("grouped", "sparse-aware", 0)]
    some = [run for run in runs if run.model.init == "torch"] + one
    for run in some:
        finished(store, run)
    publish(store, some, tmp_path / "published" / "cifar-short")
    return some


def test_attempts_that_noted_no_commit_are_counted(own, tmp_path):
    """But for the last, whose commit the record has."""
    store = Store(tmp_path / "store")
    runs = plan_of(own, "cifar-short").cells[0].runs("d" * 64)[:3]
    attempts = [[{"began": ""}] * 3, [{"began": "", "commit": "c"}, {"began": ""}], []]
    for run, before in zip(runs, attempts, strict=True):
        finish(store, run, [50.0] * run.protocol.epochs, attempts=before, commit="0123456789")
    publish(store, runs, tmp_path / "published" / "cifar-short", dirty=True)
    found = {record.run: record for record in read_published("cifar-short", tmp_path / "published")}
    noted = [_runs([found[run]])[-1].split(" | ")[-2] for run in runs]
    assert noted == ["0123456 (+ 2)", "0123456", "0123456"]


def test_the_page_says_what_is_there(partly, tmp_path):
    assert main(["published", "--to", "page"]) == 0
    page = (tmp_path / "page" / "all.md").read_text()
    assert f"groups-or-expanders: {len(partly)} of 111 runs" in page
    claims = pd.read_csv(tmp_path / "page" / "claims.csv").set_index(["claim", "scale"])
    verdict = claims["verdict"]
    assert verdict["expanders-beat-groups-torch", "cifar-short"] == "holds"
    assert verdict["expanders-beat-groups-sparse-aware", "cifar-short"] == "not tested"
    assert claims.loc[("expanders-beat-groups-torch", "cifar-short"), "value"] == pytest.approx(7.0)
    assert set(verdict.xs("cifar", level="scale")) == set(verdict.xs("paper", level="scale")) == {"not tested"}
    assert page.count("**holds**") == list(verdict).count("holds")
    row = r"^\| (\S+) \| (\S+) \| (\S+) \| (\d), (\d) \| 30 \| ([\d.]+) \| \S+ \| (\S+json) \|$"
    listed = re.findall(row, page, re.M)
    assert len(listed) == len(partly)
    for network, graph, init, graph_seed, train_seed, top1, file in listed:
        said = json.loads((tmp_path / "published" / "cifar-short" / file).read_text())
        model = said["run"]["model"]
        assert (network, init) == (model["name"], model["init"])
        assert graph == (model["graph"] if network.startswith("X-") else "–")
        assert (int(graph_seed), int(train_seed)) == (said["run"]["graph_seed"], said["run"]["train_seed"])
        assert float(top1) == pytest.approx(said["evaluation"]["top1"], abs=0.005)
    runs = pd.read_csv(tmp_path / "page" / "cifar-short-groups-or-expanders.csv")
    assert len(runs) == len(partly)
    curves = pd.read_csv(tmp_path / "page" / "cifar-short-groups-or-expanders-epochs.csv")
    assert dict(curves.groupby("label")["n"].max()) == {
        "X-MobileNet-0.5-8, random, torch": 3, "X-MobileNet-0.5-8, grouped, torch": 3,
        "X-MobileNet-0.5-8, grouped-shuffled, torch": 3, "X-MobileNet-0.5-8, grouped, sparse-aware": 1,
        "MobileNet-0.5": 3,
    }  # fmt: skip
    assert set(curves["epoch"]) == set(range(1, 31))
    for kind in ("compression", "epochs"):
        assert (tmp_path / "page" / f"cifar-short-groups-or-expanders-{kind}.png").stat().st_size > 10_000


def test_the_committed_page_is_that_of_the_published_runs(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    assert main(["published", "--to", str(tmp_path)]) == 0
    for name in ("all.md", "claims.csv"):
        assert (tmp_path / name).read_text() == (repository / "docs" / "published" / name).read_text(), "make published"


def test_damaged_notes_of_runs_trained_again_are_one_sentence(own, tmp_path, capsys):
    (tmp_path / "published").mkdir(exist_ok=True)
    (tmp_path / "published" / "remade.csv").write_text("a,b\n1,2\n")
    assert main(["published", "--to", "page"]) == 2
    assert capsys.readouterr().err.endswith("remade.csv is damaged: delete it and take it back from git.\n")


def test_nothing_published(own, tmp_path):
    assert main(["published", "--to", "page"]) == 0
    page = (tmp_path / "page" / "all.md").read_text()
    assert "**not tested**" in page
    assert not any(word in page for word in ("**holds**", "**fails**", "**undecided**", "accuracy in %"))
    counts = re.findall(r"^- .*: (\d+) of [1-9]\d* runs$", page, re.MULTILINE)
    assert len(counts) > 10
    assert set(counts) == {"0"}  # what is wanted is said of each scale, and that none of it is there
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["all.md", "claims.csv"]


def test_a_run_that_was_made_again_in_a_copy_without_git(tmp_path):
    """Its line of remade.csv has no commit."""
    (tmp_path / "remade.csv").write_text(
        "run,scale,kernel,threads,published_device,published_commit,published_top1,remade_device,remade_commit,"
        "remade_on,remade_top1,most_apart,same_weights\nA,cifar,dense,1,CPU,a123456789,50.0,CPU,,2026-01-01,50.0,0.0,True\n"
    )
    assert "| CPU | a123456 | CPU, 2026-01-01 | unknown |" in _remade(read_notes(tmp_path / "remade.csv"))[-1]
