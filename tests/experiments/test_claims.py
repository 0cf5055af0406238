"""The paper's claims as declared, and the verdicts that made-up published runs bring about."""

import csv
import json
import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from scipy import stats

from experiments import claims as claims_module
from experiments.claims import judge, read_claims, scales_of_claims
from experiments.plan import plan_of
from experiments.published import (
    not_asked_for,
    publish,
    published_records,
    published_scales,
    read_published,
    read_record,
    results_of,
)
from experiments.results import RunResult
from experiments.rows import read_rows
from experiments.settings import read_settings
from experiments.store import Store
from tests.made_up import finish
from xnets.cli import main
from xnets.errors import XNetsError
from xnets.training import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    return read_settings()


def runs(*top1):
    return [RunResult(i, i, value, value, 0, 10_000, "") for i, value in enumerate(top1)]


def verdicts(settings, scale, name, first, second):
    """Of the claim, with these accuracies for its two configurations, at this scale."""
    plan = plan_of(settings, scale)
    claim = next(claim for claim in read_claims() if claim.name == name)
    cells = [claims_module._cell(plan, side) for side in (claim.first, claim.second)]
    assert None not in cells
    results = {scale: {cells[0]: runs(*first), cells[1]: runs(*second)}}
    found = [v for v in judge(settings, results) if v.claim == claim]
    others = [v for v in judge(settings, results) if v.claim != claim and not {v.n_first, v.n_second} & {0}]
    return {v.scale: v for v in found}, others


def test_every_claim_stands_on_what_the_paper_prints(settings):
    """Its printed difference or ratio is that of the printed rows."""
    rows = {(row.item, row.row): row for row in read_rows()}
    for claim in read_claims():
        if "item" not in claim.first:
            continue
        a, b = (rows[side["item"], side["row"]] for side in (claim.first, claim.second))
        if claim.test == "spread":
            assert claim.printed == pytest.approx(a.printed_sd / b.printed_sd, abs=0.01)
        else:
            assert claim.printed == pytest.approx(a.printed_top1 - b.printed_top1, abs=0.005)


def test_scales_with_stand_ins_prove_nothing():
    assert "demo" not in scales_of_claims()
    assert {"cifar", "paper", "cifar-short"} <= set(scales_of_claims())


def test_one_claim_for_each_level_of_a_factor():
    names = [claim.name for claim in read_claims()]
    assert {"expanders-beat-groups-torch", "expanders-beat-groups-sparse-aware"} <= set(names)
    claim = next(claim for claim in read_claims() if claim.name == "expanders-beat-groups-sparse-aware")
    assert claim.first["init"] == claim.second["init"] == "sparse-aware"
    assert claim.first["graph"] == "random"
    assert claim.second["graph"] == "grouped"


@pytest.mark.parametrize(
    ("name", "scale", "first", "second", "verdict"),
    [
        ("table5-c8", "paper", (49.0, 49.5), (45.1, 45.2), "holds"),
        ("table5-c8", "paper", (45.1, 45.2), (49.0, 49.5), "fails"),
        ("table5-c8", "paper", (49.0, 44.0), (45.1, 45.2), "undecided"),
        ("table5-c8", "paper", (49.0, 49.0), (45.1, 45.1), "undecided"),
        ("table5-c8", "paper", (49.0,), (45.1, 45.2), "not tested"),
        ("table2-x-vgg16-1", "cifar", (93.5, 93.6, 93.4), (94.0, 94.1, 93.9), "holds"),
        ("table2-x-vgg16-1", "cifar", (92.5, 92.6, 92.4), (94.0, 94.1, 93.9), "fails"),
        ("table2-x-vgg16-1", "cifar", (92.9, 93.6, 93.4), (94.0, 94.6, 93.9), "undecided"),
        ("table2-x-vgg16-1", "cifar", (94.0, 94.0), (94.0, 94.0), "undecided"),
        ("table2-x-vgg16-1", "cifar", (95.5, 95.6, 95.4), (94.0, 94.1, 93.9), "fails"),
        ("table4-spread-1", "cifar", tuple(93 + i % 2 / 10 for i in range(10)),
         tuple(94 + i % 3 / 10 for i in range(10)), "holds"),
        ("table4-spread-1", "cifar", tuple(93 + i for i in range(10)), tuple(94 + i / 9 for i in range(10)), "fails"),
        ("table4-spread-1", "cifar", (93.1, 93.2), (94.1, 94.2), "undecided"),
        ("table4-spread-1", "cifar", (93.1, 93.1), (94.1, 94.2), "undecided"),
        ("expanders-beat-groups-torch", "cifar-short", (55.0, 55.5, 55.2), (48.0, 48.4, 49.0), "holds"),
    ],
)  # fmt: skip
def test_verdicts(settings, name, scale, first, second, verdict):
    found, others = verdicts(settings, scale, name, first, second)
    assert found[scale].verdict == verdict, found[scale].because
    assert (found[scale].n_first, found[scale].n_second) == (len(first), len(second))
    assert all(v.verdict == "not tested" for where, v in found.items() if where != scale), "scales are never mixed"
    assert {v.claim.test for v in others} <= {"comparable", "spread"}  # the same two networks, asked something else
    if found[scale].value is not None:
        assert found[scale].low <= found[scale].value <= found[scale].high


def test_by_pairs_is_told_and_decides_nothing(settings):
    """Against scipy; where a run has no counterpart there are no pairs."""
    first, second = (51.0, 55.0, 53.0), (48.0, 48.5, 45.5)
    found, _ = verdicts(settings, "cifar-short", "expanders-beat-groups-torch", first, second)
    verdict = found["cifar-short"]
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (verdict.paired_low, verdict.paired_high) == pytest.approx(tuple(interval))
    assert verdict.because.endswith(f"by pairs of seeds it is {interval.low:.2f} to {interval.high:.2f}")
    assert verdict.verdict == "holds"
    assert verdict.low == pytest.approx(stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95).low)
    found, _ = verdicts(settings, "cifar-short", "expanders-beat-groups-torch", first, second[:2])
    assert found["cifar-short"].paired_low is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test": "worse"}, "c: test must be one of better, comparable, spread, not 'worse'"),
        ({"margin": 1.0}, "need a margin, and better has none"),
        ({"test": "comparable"}, "need a margin, and better has none"),
        ({"first": {"item": "table5", "row": "X9"}}, "table5 has no row 'X9'"),
        ({"first": {"study": "nothing"}}, "there is no study 'nothing'"),
        ({"for_each": "init"}, "its study has no factor 'init'"),
        ({"sayz": 1}, "sayz"),
        ({"says": None}, "lacks `says:`"),
        ({"second": ["G2"]}, r"second must be `key: value` lines, not \['G2'\]"),
    ],
)
def test_mistakes_are_sentences(tmp_path, change, says):
    entry = {
        "says": "x", "where": "y", "test": "better", "first": {"item": "table5", "row": "X2"},
        "second": {"item": "table5", "row": "G2"},
    } | change  # fmt: skip
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"c": {key: value for key, value in entry.items() if value is not None}}))
    with pytest.raises(XNetsError, match=says):
        read_claims(path)


@pytest.mark.parametrize("said", ["", "[]", "{}", "[c]", "claims"])
def test_no_claims_are_a_mistake(tmp_path, said):
    """Nothing judged is not `all is well`."""
    path = tmp_path / "claims.yaml"
    path.write_text(said)
    with pytest.raises(XNetsError, match=r"^claims\.yaml has no claims: take it back from git"):
        read_claims(path)


def test_records_in_a_folder_that_is_no_scale_are_refused_by_verify_too(settings, tmp_path, monkeypatch, capsys):
    (tmp_path / "published" / "nonscale").mkdir(parents=True)
    (tmp_path / "published" / "nonscale" / "x.json").write_text("{}")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    said = []
    for command in (["published", "list"], ["verify"]):
        assert main(command) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert "nonscale is no scale's folder: there are demo" in said[0]


def test_what_is_published_is_read_back_with_its_cell(settings, tmp_path):
    plan = plan_of(settings, "cifar-long")
    planned = [run for cell in plan.cells for run in cell.runs("d" * 64)]
    store, folder = Store(tmp_path / "store"), tmp_path / "published" / "cifar-long"
    for i, run in enumerate(planned[:5]):
        finish(store, run, 50.0 + i)
    new, known = publish(store, planned, folder)
    assert (len(new), known) == (5, 0)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert publish(store, planned, folder) == ([], 5)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    records = read_published("cifar-long", tmp_path / "published")
    assert {record.run for record in records} == set(planned[:5])
    results = results_of(published_records(plan, tmp_path / "published"))
    assert list(results) == list(plan.cells)
    assert [len(results[cell]) for cell in plan.cells][:3] == [3, 2, 0]
    assert [run.top1 for cell in plan.cells for run in results[cell]] == [50.0, 51.0, 52.0, 53.0, 54.0]
    longer = replace(plan.cells[0], protocol=replace(plan.cells[0].protocol, epochs=31))
    other = replace(plan, cells=(longer,))
    none = published_records(other, tmp_path / "published")
    assert none == {longer: []}, "another protocol is another cell"
    assert not_asked_for(published_records(plan, tmp_path / "published"), "cifar-long", tmp_path / "published") == []
    assert len(not_asked_for(none, "cifar-long", tmp_path / "published")) == 5
    assert published_scales(tmp_path / "published") == ["cifar-long"]
    folder.rename(folder.with_name("mine"))
    with pytest.raises(XNetsError, match=r"mine is no scale's folder: there are demo, cifar, .*; move it elsewhere"):
        published_scales(tmp_path / "published")


def test_damaged_and_foreign_records_are_refused(settings, tmp_path):
    plan = plan_of(settings, "cifar-long")
    run = plan.cells[0].runs("d" * 64)[0]
    store, folder = Store(tmp_path / "store"), tmp_path / "published" / "cifar-long"
    finish(store, run, 50.0)
    ((path,), _) = publish(store, [run], folder)
    whole = path.read_text()

    def refused(text, says, name=None):
        wrong = path.with_name(name) if name else path
        path.unlink(missing_ok=True)
        wrong.write_text(text)
        with pytest.raises(XNetsError, match=says):
            read_published("cifar-long", tmp_path / "published")
        wrong.unlink()
        path.write_text(whole)

    refused(whole[:-20], "is damaged")
    refused("[" * 100_000, "is damaged")
    refused('{"run": ' + "1" * 5000 + "}", "is damaged")
    refused("{}", "is no published run")
    refused(whole.replace('"train_seed": 0', '"train_seed": 1'), "is of another run")
    refused(whole.replace('"engine": 1', '"engine": 2'), "engine 2")
    refused(whole.replace('"top1": 50.0', '"top1": 150.0'), "is not an evaluation")
    refused(whole.replace('"epoch": 7,', '"epoch": 6,'), "does not have the run's 150 epochs")
    edited = rf"{run.label}\.json says that its evaluation came to 50\.90 %, and its last epoch to 50\.00 %"
    refused(whole.replace('"top1": 50.0', '"top1": 50.9'), edited)
    refused(whole.replace('"n": 10000', '"n": null'), "is not an evaluation")
    refused(whole.replace('"n": 10000', '"n": 9999'), "has 9999 test images where cifar100 has 10000")
    for wrong in ("49.9", "101", '"high"', "null"):
        refused(whole.replace('"top5": 99.0', f'"top5": {wrong}'), "has a top-5 accuracy that is none, or below its")
    for wrong in ("-0.1", '"low"', "true"):
        refused(whole.replace('"loss": 1.0', f'"loss": {wrong}'), "has a loss that is none")
    path.write_text(whole.replace('"loss": 1.0', '"loss": null'))
    assert read_published("cifar-long", tmp_path / "published"), "a network that diverged"
    wrongs = {"threads": "1", "dirty": 0, "commit": 5, "kernel": None, "processes": 0, "slurm_job": 7}
    for key, wrong in [*wrongs.items(), ("seconds", None), ("seconds", -1.0), ("threads", 10**9), ("attempts", [1])]:
        said = json.loads(whole)
        said["provenance"][key] = wrong
        refused(
            json.dumps(said), rf"\.json has {re.escape(repr(wrong))} for {key} in its provenance: delete it and take"
        )
    said = json.loads(whole)
    del said["provenance"]["cuda"], said["provenance"]["threads"]
    refused(json.dumps(said), r"\.json lacks cuda, threads in its provenance: delete it and take it back")
    refused(whole, f"is {run.label}", "other.json")
    with pytest.raises(XNetsError, match=r"README\.md is no published run: name a JSON file"):
        read_record(ROOT / "published" / "README.md")
    other = replace(run, data_digest="e" * 64, train_seed=1, graph_seed=1)
    finish(store, other, 50.0)
    (theirs,), _ = publish(store, [other], tmp_path / "elsewhere")
    theirs.rename(folder / theirs.name)
    with pytest.raises(XNetsError, match="were not trained on the same cifar100: delete one"):
        read_published("cifar-long", tmp_path / "published")
    finish(store, run, 51.0, "v")
    with pytest.raises(XNetsError, match="holds another result of this run"):
        publish(store, [run], folder)


def test_every_run_has_a_label_of_its_own(settings):
    """Records are named by it."""
    for scale in scales_of_claims():
        planned = {run for cell in plan_of(settings, scale).cells for run in cell.runs("d" * 64)}
        assert len({run.label for run in planned}) == len(planned)


def test_published_records_of_this_repository_are_sound(settings):
    for scale in published_scales(ROOT / "published"):
        plan = plan_of(settings, scale)
        records = read_published(scale, ROOT / "published")
        shown = sum(len(found) for found in published_records(plan, ROOT / "published").values())
        labels = {record.run.label for record in records}
        assert shown >= len(labels), "each is shown by some cell of the plan"
        assert all(Run.from_dict(record.said["run"]) == record.run for record in records)


def test_the_page_has_a_verdict_for_every_claim_and_scale(settings):
    with open(ROOT / "docs" / "published" / "claims.csv", newline="") as file:
        written = [(row["claim"], row["scale"]) for row in csv.DictReader(file)]
    assert written == [(verdict.claim.name, verdict.scale) for verdict in judge(settings, {})]


def test_all_levels_of_the_studys_factors_are_judged(settings):
    study = [claim for claim in read_claims() if "study" in claim.first]
    assert {(c.first["graph"], c.second["graph"], c.first["init"]) for c in study} >= set(
        (a, b, init)
        for (a, b), init in product([("random", "grouped"), ("random", "grouped-shuffled")], ["torch", "sparse-aware"])
    )
