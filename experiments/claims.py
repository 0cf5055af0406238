"""The paper's statements on accuracy, as claims.yaml beside this file declares them, and what published runs say."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from experiments.cells import Cell
from experiments.comparisons import equivalence, spread_ratio, welch
from experiments.plan import Plan, plan_of
from experiments.results import RunResult
from experiments.rows import read_rows
from experiments.scales import read_scales
from experiments.settings import Settings, check_keys
from experiments.statistics import summarise
from experiments.studies import FACTORS, Study, read_studies
from experiments.yaml_files import read_yaml
from xnets.errors import XNetsError

CLAIMS = Path(__file__).parent / "claims.yaml"
TESTS = ("better", "comparable", "spread")
LEVEL = 0.05
ALIKE = "the runs of each side are all the same, and say nothing of chance"


@dataclass(frozen=True)
class Claim:
    """A statement and its test; claims.yaml says what each part means. first, second: as written there."""

    name: str
    says: str
    where: str
    test: str
    first: dict[str, Any]
    second: dict[str, Any]
    printed: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim at one scale.

    n_first, n_second: published runs. value: the difference of the means in points, or the ratio of the sds, with its
    interval low to high (95 %; of "comparable" 90 %, as its test has it); p of the test; detectable: see
    comparisons.Difference. verdict: "holds", "fails", "undecided" or "not tested", and why in `because`. paired_low,
    paired_high: of "better", the interval by pairs of runs with equal seeds if all have one; it decides nothing.
    """

    claim: Claim
    scale: str
    n_first: int
    n_second: int
    verdict: str
    because: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    detectable: float | None = None
    paired_low: float | None = None
    paired_high: float | None = None


@cache
def read_claims(path: Path = CLAIMS) -> tuple[Claim, ...]:
    """All claims; one `for_each` a factor of its study is one for each of its levels. Mistakes are one sentence."""
    said = read_yaml(path)
    if not isinstance(said, dict) or not said:
        raise XNetsError(f"{path.name} has no claims: take it back from git, or write one as `name: {{says: ...}}`.")
    claims: list[Claim] = []
    for name, entry in said.items():
        where = f"{path.name}: {name}"
        if not isinstance(entry, dict):
            raise XNetsError(f"{where} must be `key: value` lines.")
        check_keys(where, entry, ("says", "where", "test", "printed", "margin", "for_each", "first", "second"))
        for key in ("says", "where", "test", "first", "second"):
            if key not in entry:
                raise XNetsError(f"{where} lacks `{key}:`.")
        for side in ("first", "second"):
            if not isinstance(entry[side], dict):
                raise XNetsError(f"{where}: {side} must be `key: value` lines, not {entry[side]!r}.")
        if entry["test"] not in TESTS:
            raise XNetsError(f"{where}: test must be one of {', '.join(TESTS)}, not {entry['test']!r}.")
        if (entry["test"] == "better") != ("margin" not in entry):
            raise XNetsError(f"{where}: tests of comparable and spread need a margin, and better has none.")
        rest = {key: value for key, value in entry.items() if key != "for_each"}
        for level in _levels(where, entry):
            sides = {side: _checked_side(where, {**entry[side], **level}) for side in ("first", "second")}
            words = "".join(f", {factor} {value}" for factor, value in level.items())
            ends = "".join(f"-{value}" for value in level.values())
            claims.append(Claim(**{**rest, **sides, "name": name + ends, "says": entry["says"] + words}))
    return tuple(claims)


def _levels(where: str, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    factor = entry.get("for_each")
    if factor is None:
        yield {}
        return
    levels = {
        level: None
        for study in _studies_named(str(entry["first"].get("study")))
        for level in study.factors.get(factor, ())
    }
    if not levels:
        raise XNetsError(f"{where}: its study has no factor {factor!r}.")
    for level in levels:
        yield {factor: level}


def _studies_named(name: str) -> list[Study]:
    return [study for scale in read_scales() for study in read_studies(scale).values() if study.name == name]


def _checked_side(where: str, side: dict[str, Any]) -> dict[str, Any]:
    if "study" in side:
        if not _studies_named(side["study"]):
            raise XNetsError(f"{where}: there is no study {side['study']!r}.")
        check_keys(where, side, ("study", "network", *FACTORS))
        return side
    check_keys(where, side, ("item", "row"))
    if not any((row.item, row.row) == (side.get("item"), side.get("row")) for row in read_rows()):
        raise XNetsError(f"{where}: {side.get('item')} has no row {side.get('row')!r}.")
    return side


def judge(settings: Settings, results: dict[str, dict[Cell, list[RunResult]]]) -> list[Verdict]:
    """A verdict for each claim at each scale that has its configurations; results: by scale, the runs of its cells."""
    verdicts = []
    plans = {scale: plan_of(settings, scale) for scale in scales_of_claims()}
    for claim in read_claims():
        for scale, plan in plans.items():
            cells = _cell(plan, claim.first), _cell(plan, claim.second)
            if None not in cells:
                verdicts.append(_judged(claim, scale, *(results.get(scale, {}).get(cell, []) for cell in cells)))
    return verdicts


def number_of_tests(verdicts: list[Verdict]) -> str:
    """A sentence on how many tests were made, and what that means."""
    tested = [verdict for verdict in verdicts if verdict.verdict != "not tested"]
    return (
        f"{len(tested)} of {len(verdicts)} tests could be made, each by itself at {100 * LEVEL:g} %: where there is no "
        "difference, one in twenty is decided by chance."
    )


def scales_of_claims() -> list[str]:
    """All scales but those where other data stand for the paper's: they prove nothing."""
    return [name for name, scale in read_scales().items() if all(k == v for k, v in scale["datasets"].items())]


def _cell(plan: Plan, side: dict[str, Any]) -> Cell | None:
    """The configuration that a side of a claim names, if this plan has it and on the paper's own data."""
    if "item" in side:
        row = next(row for row in read_rows() if (row.item, row.row) == (side["item"], side["row"]))
        return plan.cell_of(row)
    wanted = {("name" if key == "network" else key): value for key, value in side.items() if key != "study"}
    for cell in plan.cells:
        if cell.study == side["study"] and all(getattr(cell.model, key) == value for key, value in wanted.items()):
            return cell
    return None


def _judged(claim: Claim, scale: str, first: list[RunResult], second: list[RunResult]) -> Verdict:
    a, b = [run.top1 for run in first], [run.top1 for run in second]
    about = {"claim": claim, "scale": scale, "n_first": len(a), "n_second": len(b)}
    if min(len(a), len(b)) < 2:
        few = "no runs" if not a and not b else f"{len(a)} and {len(b)} runs"
        return Verdict(**about, verdict="not tested", because=f"{few} published; it takes 2 of each")
    test = {"better": _better, "comparable": _comparable, "spread": _spread}[claim.test]
    found = Verdict(**about, **test(claim, a, b))
    return _with_pairs(found, first, second) if claim.test == "better" else found


def _with_pairs(verdict: Verdict, first: list[RunResult], second: list[RunResult]) -> Verdict:
    """Runs of equal seeds share the order of their images, and where they can their first weights."""
    mine, others = ({(run.graph_seed, run.train_seed): run.top1 for run in side} for side in (first, second))
    if mine.keys() != others.keys():
        return verdict
    seen = summarise([mine[seeds] - others[seeds] for seeds in mine])
    because = f"{verdict.because}; by pairs of seeds it is {seen.low:.2f} to {seen.high:.2f}"
    return replace(verdict, because=because, paired_low=seen.low, paired_high=seen.high)


def _better(claim: Claim, a: list[float], b: list[float]) -> dict[str, Any]:
    found = welch(a, b)
    numbers = {"value": found.value, "low": found.low, "high": found.high, "p": found.p}
    numbers["detectable"] = found.detectable
    if found.se == 0:
        return {"verdict": "undecided", "because": ALIKE}
    power = f"{found.detectable:.1f} points would be found in 4 of 5 cases"
    if found.low > 0:
        return {"verdict": "holds", "because": f"the interval lies above 0; {power}", **numbers}
    if found.high < 0:
        return {"verdict": "fails", "because": f"the interval lies below 0: the second is better; {power}", **numbers}
    return {"verdict": "undecided", "because": f"the interval holds 0; {power}", **numbers}


def _comparable(claim: Claim, a: list[float], b: list[float]) -> dict[str, Any]:
    p, low, high = equivalence(a, b, claim.margin)
    whole = welch(a, b)
    if whole.se == 0:
        return {"verdict": "undecided", "because": ALIKE}
    numbers = {"value": whole.value, "low": low, "high": high, "p": p, "detectable": whole.detectable}
    if p < LEVEL:
        return {"verdict": "holds", "because": f"the interval lies within {claim.margin:g} points", **numbers}
    if whole.low >= claim.margin or whole.high <= -claim.margin:
        return {"verdict": "fails", "because": f"they differ by {claim.margin:g} points or more", **numbers}
    return {"verdict": "undecided", "because": f"the interval reaches beyond {claim.margin:g} points", **numbers}


def _spread(claim: Claim, a: list[float], b: list[float]) -> dict[str, Any]:
    try:
        value, low, high = spread_ratio(a, b)
    except XNetsError as error:
        return {"verdict": "undecided", "because": str(error)}
    numbers = {"value": value, "low": low, "high": high}
    if high < claim.margin:
        return {"verdict": "holds", "because": f"the interval lies below {claim.margin:g} times", **numbers}
    if low >= claim.margin:
        return {"verdict": "fails", "because": f"the interval lies above {claim.margin:g} times", **numbers}
    return {"verdict": "undecided", "because": f"the interval holds {claim.margin:g} times", **numbers}
