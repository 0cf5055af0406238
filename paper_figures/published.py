"""docs/published/: what the published runs say, as figures and a table of the paper's claims."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from experiments.cells import Cell
from experiments.claims import Verdict, judge, scales_of_claims
from experiments.plan import Plan, plan_of
from experiments.published import Record, published_records, published_scales, read_published
from experiments.settings import Settings
from experiments.studies import Study, read_studies
from paper_figures.drawing import save
from paper_figures.studies import comparison, epochs
from paper_figures.studies.frames import face, study_frame
from xnets.files import write_atomically

MADE_BY = "Written by `python -m paper_figures published` from published/ and experiments/claims.yaml."


def write_published(settings: Settings, folder: Path) -> None:
    """Write claims.csv and all.md, and of each study that has runs <scale>-<study>.csv and its figures."""
    plans = {scale: plan_of(settings, scale) for scale in dict.fromkeys([*scales_of_claims(), *published_scales()])}
    records = {scale: published_records(plan, read_published(scale)) for scale, plan in plans.items()}
    results = {
        scale: {cell: [record.result for record in found] for cell, found in cells.items()}
        for scale, cells in records.items()
    }
    verdicts = judge(settings, results)
    claims = pd.DataFrame([_flat(verdict) for verdict in verdicts])
    _write(folder / "claims.csv", claims.to_csv(index=False, lineterminator="\n", float_format="%.10g"))
    page = ["# What the published runs say", "", MADE_BY, "", *_claims(verdicts)]
    for scale, plan in plans.items():
        if any(records[scale].values()):
            page += ["", f"## Scale {scale}: {plan.about}", "", *_coverage(plan, records[scale])]
            for study in read_studies(scale).values():
                if any(found for cell, found in records[scale].items() if cell.study == study.name):
                    page += _write_study(study, plan, records[scale], folder / f"{scale}-{study.name}")
    _write(folder / "all.md", "\n".join([*page, ""]))


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
    return lines


def _coverage(plan: Plan, records: dict[Cell, list[Record]]) -> list[str]:
    """Runs published of runs wanted, for each item that has one."""
    said = []
    for item in dict.fromkeys(item for cell in plan.cells for item in cell.items):
        cells = [cell for cell in plan.cells if item in cell.items]
        there, wanted = sum(len(records[cell]) for cell in cells), sum(len(cell.seeds) for cell in cells)
        if there:
            said.append(f"- {item}: {there} of {wanted} runs")
    return said


def _write_study(study: Study, plan: Plan, records: dict[Cell, list[Record]], stem: Path) -> list[str]:
    results = {cell: [record.result for record in found] for cell, found in records.items()}
    frame = study_frame(study, plan, results, measured=False)
    _write(stem.with_suffix(".csv"), frame.to_csv(index=False, lineterminator="\n", float_format="%.10g"))
    figure, data = comparison.draw(study, frame)
    save(figure, data, stem.with_name(f"{stem.name}-comparison"))
    curves = epochs.epoch_frame(study, plan, records)
    save(epochs.draw(study, curves, face(frame)[0]), curves, stem.with_name(f"{stem.name}-epochs"))
    pictures = [f"![{study.name}, {kind}]({stem.name}-{kind}.png)" for kind in ("comparison", "epochs")]
    return ["", f"### {study.name}", "", study.question, "", *pictures]


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
