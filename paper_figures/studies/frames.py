"""The runs of a study as data, and their summary for each configuration."""

import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pandas as pd

from experiments.cells import Cell
from experiments.plan import Plan
from experiments.results import RunResult, graph_file
from experiments.scales import read_scales
from experiments.statistics import summarise
from experiments.studies import FACTORS, Study
from xnets.errors import XNetsError
from xnets.files import read_json
from xnets.models import ModelSpec

MEASURES = ("gap", "layers", "until_all", "seen", "reach")
NUMBERS = ("top1", "best_top1", *MEASURES)


def study_frame(
    study: Study, plan: Plan, results: dict[Cell, list[RunResult]], measured: bool = True
) -> pd.DataFrame:  # fmt: skip
    """One line for each run; measured: with what the stage `sample` measured of its graphs.

    study, scale, dataset (the paper's), trained_on. network, and its factors: rule, graph, init, narrow, drop_strides.
    label: the network and its levels, as far as they vary in the study; references, trained without factors, go by
    their name. graph_seed, train_seed. top1 (last epoch, the result), best_top1 (best epoch, picked on the test set),
    n_test. Of expander networks: gap, 1 - sigma2 / sigma1 averaged over the expander layers; and where each layer feeds
    the next one only (VGG16, MobileNet) layers, until_all, seen and reach as experiments.graphs.stack_record says.
    """
    lines = []
    for cell in plan.cells:
        if cell.study != study.name:
            continue
        said = asdict(cell.model)
        about = {
            "study": study.name, "scale": plan.settings.scale, "dataset": study.dataset, "trained_on": cell.dataset,
            "network": cell.model.name, "reference": cell.model.name in study.references,
            "label": configuration_label(study, cell.model), **{factor: said[factor] for factor in FACTORS},
        }  # fmt: skip
        for run in results[cell]:
            seeds = {"graph_seed": run.graph_seed, "train_seed": run.train_seed}
            scores = {"top1": run.top1, "best_top1": run.best_top1, "n_test": run.n_test}
            line = about | seeds | scores
            lines.append(line | (_measures(plan, cell.model, run.graph_seed) if measured else dict.fromkeys(MEASURES)))
    return pd.DataFrame(lines).astype(dict.fromkeys(NUMBERS, float))


def summary_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """One line for each label, in the study's order: mean, sd, 95 % Student-t interval (where graph and train seeds are
    crossed, none), and the measures' means."""
    lines = []
    for label, runs in frame.groupby("label", sort=False):
        found = asdict(summarise(list(runs["top1"])))
        if are_crossed(zip(runs["graph_seed"], runs["train_seed"], strict=True)):
            found |= {"low": None, "high": None}
        # after how many layers all is seen: the worst draw's, none if one never gets there
        until_all = runs["until_all"].max(skipna=False)
        measures = {name: runs[name].mean() for name in MEASURES} | {"until_all": until_all}
        about = {
            name: runs[name].iloc[0] for name in ("study", "scale", "trained_on", "network", "reference", *FACTORS)
        }
        lines.append({"label": label, **about, **found, **measures})
    return pd.DataFrame(lines).astype(dict.fromkeys(("sd", "low", "high"), float))


def are_crossed(seeds: Iterable[tuple[int, int]]) -> bool:
    """Whether runs share graph seeds and train seeds both, so that they do not count as independent."""
    seeds = set(seeds)
    return all(len(set(side)) < len(seeds) for side in zip(*seeds, strict=True))


def face(frame: pd.DataFrame) -> tuple[str, bool]:
    """What the numbers are, for the face of a figure; and whether other data stand for the paper's."""
    scale = frame["scale"].iloc[0]
    stand_in = bool((frame["trained_on"] != frame["dataset"]).any())
    about = read_scales()[scale]["about"].split(";")[0]
    return f"Scale {scale}: {about}" + (" – proves nothing about the paper" if stand_in else ""), stand_in


def headed(study: Study, said: str) -> str:
    """The study's question over a sentence or two, in lines that fit the width of a figure."""
    return "\n".join([study.question, *textwrap.wrap(said, 118)])


def configuration_label(study: Study, model: ModelSpec) -> str:
    """The network and its levels, as far as they vary in the study; of a reference its name."""
    if model.name in study.references:
        return model.name
    said = asdict(model)
    parts = [str(said[factor]) for factor, levels in study.factors.items() if len(levels) > 1]
    return ", ".join([model.name] * (len(study.networks) > 1 or not parts) + parts)


def _measures(plan: Plan, model: ModelSpec, graph_seed: int) -> dict[str, Any]:
    if model.parsed.kind != "X":
        return dict.fromkeys(MEASURES)
    path = graph_file(plan, model, graph_seed)
    if not path.exists():
        raise XNetsError(f"{path} is missing: run `dvc repro sample`.")
    said = read_json(path, "and run `dvc repro sample`")
    layers, stack = said.get("layers") or [], said.get("stack") or {}
    gap = sum(1 - layer["sigma_ratio"] for layer in layers) / len(layers) if layers else None
    return {"gap": gap, **{name: stack.get(name) for name in MEASURES[1:]}}
