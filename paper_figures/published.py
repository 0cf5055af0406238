"""docs/published/: what the published runs say: the paper's claims and rows, figures of studies, runs trained again."""

import importlib
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from experiments.cells import Cell
from experiments.claims import Verdict, judge, number_of_tests, scales_of_claims
from experiments.plan import Plan, plan_of
from experiments.published import Record, coverage, not_asked_for, published_records, published_scales, results_of
from experiments.remake import read_notes
from experiments.results import RunResult
from experiments.rows import read_rows
from experiments.settings import Settings
from experiments.statistics import summarise
from experiments.studies import Study, read_studies
from paper_figures.csv_text import csv_text
from paper_figures.drawing import save
from paper_figures.studies import epochs
from paper_figures.studies.frames import face, study_frame
from xnets.files import write_text

MADE_BY = "Written by `make published` from published/ and experiments/claims.yaml."


def write_published(settings: Settings, folder: Path) -> None:
    """Write claims.csv and all.md, and of each study that has runs <scale>-<study>.csv and its figures."""
    plans = {scale: plan_of(settings, scale) for scale in dict.fromkeys([*scales_of_claims(), *published_scales()])}
    records = {scale: published_records(plan) for scale, plan in plans.items()}
    verdicts = judge(settings, {scale: results_of(cells) for scale, cells in records.items()})
    claims = pd.DataFrame([_flat(verdict) for verdict in verdicts])
    write_text(folder / "claims.csv", csv_text(claims))
    page = ["# What the published runs say", "", MADE_BY, "", *_claims(verdicts)]
    for scale, plan in plans.items():
        page += ["", f"## Scale {scale}: {plan.about}", "", *_coverage(records[scale], scale)]
        if any(records[scale].values()):
            page += _paper_rows(plan, results_of(records[scale]))
            page += _runs([record for found in records[scale].values() for record in found])
            for study in read_studies(scale).values():
                if any(found for cell, found in records[scale].items() if cell.study == study.name):
                    page += _write_study(study, plan, records[scale], folder / f"{scale}-{study.name}")
    if notes := read_notes():
        page += ["", "## Trained again", "", *_remade(notes)]
    write_text(folder / "all.md", "\n".join([*page, ""]))


def _flat(verdict: Verdict) -> dict:
    claim = verdict.claim
    said = {"claim": claim.name, "says": claim.says, "where": claim.where, "test": claim.test, "margin": claim.margin}
    return said | {"printed": claim.printed} | {k: v for k, v in asdict(verdict).items() if k != "claim"}


def _claims(verdicts: list[Verdict]) -> list[str]:
    """A table; of a claim that no scale has tested, one line."""
    lines = [
        "| claim | paper | test | scale | runs | difference or ratio | printed | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    tested = {verdict.claim.name for verdict in verdicts if verdict.verdict != "not tested"}
    shown: set[str] = set()
    for verdict in verdicts:
        claim = verdict.claim
        if verdict.verdict == "not tested" and (claim.name in tested or claim.name in shown):
            continue
        shown.add(claim.name)
        test = claim.test + (f" (margin {claim.margin:g})" if claim.margin else "")
        value = "–" if verdict.value is None else f"{verdict.value:.2f} [{verdict.low:.2f}, {verdict.high:.2f}]"
        printed = "–" if claim.printed is None else f"{claim.printed:.2f}"
        runs = "–" if verdict.verdict == "not tested" else f"{verdict.n_first}, {verdict.n_second}"
        scale = "–" if verdict.verdict == "not tested" else verdict.scale
        why = "" if verdict.verdict == "not tested" else f": {verdict.because}"
        lines.append(
            f"| {claim.says} | {claim.where} | {test} | {scale} | {runs} | {value} | {printed} | "
            f"**{verdict.verdict}**{why} |"
        )
    return [*lines, "", number_of_tests(verdicts)]


def _coverage(records: dict[Cell, list[Record]], scale: str) -> list[str]:
    """Of each item of the scale, and how many runs no item shows."""
    lines = [f"- {item}: {there} of {wanted} runs" for item, (there, wanted) in coverage(records).items()]
    others = len(not_asked_for(records, scale))
    return [*lines, f"- shown nowhere: {others} runs"] if others else lines


def _paper_rows(plan: Plan, results: dict[Cell, list[RunResult]]) -> list[str]:
    """The rows of the paper's tables and figures that have a published run: printed, logged and published."""
    lines = []
    for row in read_rows():
        cell = plan.cell_of(row)
        if cell and (runs := results.get(cell)):
            seen = summarise([run.top1 for run in runs])
            interval = f" ± {seen.sd:.2f} [{seen.low:.2f}, {seen.high:.2f}]" if seen.n > 1 else ""
            logged = f"{_percent(row.log_best)} / {_percent(row.log_final)}"
            lines.append(
                f"| {row.item} | {row.row} | {row.dataset} | {cell.protocol.epochs} | {_percent(row.printed_top1)} | "
                f"{logged} | {seen.mean:.2f}{interval} ({seen.n} of {len(cell.seeds)}) |"
            )
    heads = [
        "",
        "The paper's rows, accuracy in %. Printed and logged are after all of the paper's epochs, published after "
        "those of this scale: they cannot be compared but within a column.",
        "",
        "| item | row | data | epochs here | printed | authors' log, best / last | published, last epoch (runs) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return [*heads, *lines] if lines else []


def _runs(records: list[Record]) -> list[str]:
    """Each of them, and with which file it is trained again."""
    lines = [
        "",
        "Each run by itself; `xnets published remake published/SCALE/FILE` trains it again. The commit is that of its "
        "last attempt; (+ 2): two earlier ones noted none, which `xnets published add` would refuse today.",
        "",
        "| network | graph | init | seeds of graph, training | epochs | top-1 | commit | file |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for _, record in sorted({record.path: record for record in records}.items()):
        run, about = record.run, record.said["provenance"]
        unknown = sum("commit" not in attempt for attempt in about.get("attempts", [])[:-1])
        commit = _short(about["commit"] or "") + (f" (+ {unknown})" if unknown else "")
        graph = run.model.graph if run.model.parsed.kind == "X" else "–"
        lines.append(
            f"| {run.model.name} | {graph} | {run.model.init} | {run.graph_seed}, {run.train_seed} | "
            f"{run.protocol.epochs} | {record.said['evaluation']['top1']:.2f} | {commit} | {record.path.name} |"
        )
    return lines


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _remade(notes: list[dict[str, str]]) -> list[str]:
    """What `xnets published remake --note` has written down."""
    lines = [
        "By `xnets published remake FILE.json --note`.",
        "",
        "| run | first trained on | at commit | again on | at commit | kernel, threads | top-1, % | outcome |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for seen in notes:
        apart, before, again = (f"{float(seen[key]):.2f}" for key in ("most_apart", "published_top1", "remade_top1"))
        same, differ = "the same weights to the last bit", f"at most {apart} points apart in any epoch"
        lines.append(
            f"| {seen['run']} ({seen['scale']}) | {seen['published_device']} | {_short(seen['published_commit'])} | "
            f"{seen['remade_device']}, {seen['remade_on']} | {_short(seen['remade_commit'])} | "
            f"{seen['kernel']}, {seen['threads']} | {before}, again {again} | "
            f"{same if seen['same_weights'] == 'True' else differ} |"
        )
    return lines


def _short(commit: str) -> str:
    """The commit's first letters; of a copy without git none was noted."""
    return commit[:7] or "unknown"


def _write_study(study: Study, plan: Plan, records: dict[Cell, list[Record]], stem: Path) -> list[str]:
    frame = study_frame(study, plan, results_of(records), measured=False)
    write_text(stem.with_suffix(".csv"), csv_text(frame))
    kind = _drawable(study, frame)
    figure, data = importlib.import_module(f"paper_figures.studies.{kind}").draw(study, frame)
    save(figure, data, stem.with_name(f"{stem.name}-{kind}"))
    curves = epochs.epoch_frame(study, plan, records)
    save(epochs.draw(study, curves, face(frame)[0]), curves, stem.with_name(f"{stem.name}-epochs"))
    pictures = [f"![{study.name}, {kind}]({stem.name}-{kind}.png)" for kind in (kind, "epochs")]
    return ["", f"### {study.name}", "", study.question, "", *pictures]


def _drawable(study: Study, frame: pd.DataFrame) -> str:
    """The figure: the study's own, or comparison where that needs all runs or what the stage `sample` measures."""
    if "compression" in study.figures:
        return "compression"
    whole = all(len(runs) == len(study.seeds) for _, runs in frame[~frame["reference"]].groupby("label"))
    return "stability" if "stability" in study.figures and whole else "comparison"
