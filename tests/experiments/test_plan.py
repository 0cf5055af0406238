"""The paper as data, and the plan made of it."""

import csv
from dataclasses import replace

import pytest
import yaml

from experiments.plan import make_plan
from experiments.rows import read_rows
from experiments.scales import read_protocols, read_scales
from experiments.settings import ITEMS, read_settings
from xnets.errors import XNetsError
from xnets.models import PAPER_MODELS, parse_name
from xnets.training import Protocol


def printed(repository, name):
    with open(repository / "experiments" / "paper" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def number(text):
    """The first number in a cell of a printed table."""
    return float(text.replace("%", "").replace("M", " ").split()[0].split("±")[0])


def rows_of(item):
    return [row for row in read_rows() if row.item == item]


@pytest.mark.parametrize(
    ("item", "name", "columns"),
    [
        ("table1", "Model", {"Accuracy": "printed_top1"}),
        ("table2", "Method", {"Accuracy": "printed_top1", "#Params": "printed_params_M"}),
        ("table3", "Method", {"Accuracy": "printed_top1", "#Params": "printed_params_M"}),
        ("table4", "Model", {"Accuracy%": "printed_top1", "Max%": "printed_max", "Min%": "printed_min"}),
        ("table5", "MobileNet Variant", {"Mean Accuracy": "printed_top1", "Range (Max-Min)": "printed_range"}),
    ],
)
def test_every_printed_row_is_there_with_its_values(repository, item, name, columns):
    lines = [line for line in printed(repository, item) if line[next(iter(columns))]]
    rows = rows_of(item)
    assert [row.row for row in rows] == [line[name].strip() for line in lines]
    for row, line in zip(rows, lines, strict=True):
        for column, field in columns.items():
            assert getattr(row, field) == number(line[column])


def test_table1_flops_and_table4_deviations(repository):
    for row, line in zip(rows_of("table1"), printed(repository, "table1"), strict=True):
        assert row.printed_flops_M == 100 * float(line["#FLOPs (in 100M)"])
    for row, line in zip(rows_of("table4"), printed(repository, "table4"), strict=True):
        assert row.printed_sd == float(line["Accuracy%"].split("±")[1])


def test_every_figure_point_is_there(repository):
    points = [point for point in printed(repository, "figure_points") if point["figure"].isdigit()]
    rows = [row for row in read_rows() if row.item.startswith("figure")]
    assert len(rows) == len(points)
    for row, point in zip(rows, points, strict=True):
        assert row.item == f"figure{point['figure']}"
        assert row.printed_top1 == (float(point["y_top1"]) if point["y_top1"] else None)
        assert row.printed_flops_M == (float(point["x_printed"]) if point["x_printed"] else None)


def test_rows_speak_of_the_right_network():
    """C, depth and growth stand in the printed label too."""
    for row in read_rows():
        if not row.model:
            continue
        name = parse_name(row.model)
        numbers = [str(n) for n in (name.compression, name.depth, name.growth) if n]
        said = row.row.replace("-", " ").split()
        if row.item in ("table1", "figure4", "figure5", "figure6"):
            assert all(n in said for n in numbers), row
        assert (row.log_best is None) == (row.log == ""), row
        if row.printed_source == "log best":
            assert row.log_best == pytest.approx(row.printed_top1, abs=0.005)


def test_every_network_of_the_paper_is_in_some_row():
    assert {row.model for row in read_rows() if row.model} == set(PAPER_MODELS)


@pytest.fixture
def settings(repository):
    return read_settings(repository / "params.yaml")


def test_demo_trains_every_row_and_shares_runs(settings):
    plan = make_plan(replace(settings, scale="demo"))
    shown = {row for cell in plan.cells for row in cell.rows}
    assert shown == {row for row in read_rows() if row.model}
    rows = [cell for cell in plan.cells if not cell.study]
    keys = [cell.key for cell in rows]
    assert len(keys) == len(set(keys))
    runs = list(dict.fromkeys(run for cell in plan.cells for run in cell.runs("digest")))
    assert len({run.fingerprint for run in runs}) == len(runs)
    assert len({run.label for run in runs}) == len(runs), "labels name result files"
    seeds = {cell.model.name: len(cell.seeds) for cell in rows}
    assert all(seeds[row.model] >= 10 for row in rows_of("table4"))
    assert all(seeds[row.model] >= 2 for row in rows_of("table5"))


@pytest.mark.parametrize("scale", ["cifar", "paper"])
def test_full_scales_use_the_papers_protocol_and_network(settings, scale):
    plan = make_plan(replace(settings, scale=scale))
    protocols = {Protocol(**said) for said in read_protocols().values()}
    for cell in plan.cells:
        assert cell.protocol in protocols
        assert (cell.model.narrow, cell.model.drop_strides) == (1, 0)
        assert cell.model.rule == "paper" or cell.study
        assert cell.protocol.epochs == {"cifar10": 300, "cifar100": 300}.get(cell.dataset, cell.protocol.epochs)
        assert {row.dataset for row in cell.rows} <= {cell.dataset}
        assert bool(cell.rows) != bool(cell.study)
    items = {row.item for cell in plan.cells for row in cell.rows}
    assert items == (set(ITEMS) if scale == "paper" else {"table2", "table4", "figure4", "figure6"})


def test_demo_keeps_every_compression_possible(settings):
    """C must not exceed a fan-in of the narrowed networks: all are built."""
    from xnets.models import build_spec

    for cell in make_plan(replace(settings, scale="demo")).cells:
        build_spec(cell.model, 0, device="meta")


def test_one_more_seed_is_one_more_run(settings):
    plan = make_plan(settings)
    more = {**settings.seeds, "table4": {**settings.seeds["table4"], "X-VGG16-1": 11}}
    before = {run for cell in plan.cells for run in cell.runs("d")}
    after = {run for cell in make_plan(replace(settings, seeds=more)).cells for run in cell.runs("d")}
    (added,) = after - before
    assert before < after
    assert (added.model.name, added.graph_seed, added.train_seed) == ("X-VGG16-1", 10, 10)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scale": "full"}, "demo, cifar, paper"),
        ({"scale": None}, "demo, cifar, paper"),
        ({"executor": "lsf"}, "executor must be one of"),
        ({"sclae": "demo"}, "Did you mean 'scale'"),
        ({"seeds": {"table9": 1}}, "table9"),
        ({"seeds": {"table4": {"X-VGG": 1}}}, "Did you mean .X-VGG16-"),
        ({"seeds": {"table4": 0}}, "whole number >= 1"),
        ({"seeds": {"table4": -3}}, "whole number >= 1"),
        ({"seeds": {"table4": {"VGG16": 2.5}}}, "whole number >= 1"),
        ({"local": {"device": "tpu"}}, "auto, cpu, cuda"),
        ({"local": {"workers": -1}}, "workers"),
        ({"data": {"source": {}}}, "sources"),
        ({"data": {"sources": ["a"]}}, "data.sources"),
        ({"data": {"folder": None}}, "data.folder"),
        ({"store": 5}, "store must be"),
        ({"seeds": 5}, "seeds must be"),
        ({"local": 5}, "local must be"),
        ({"local": {"workers": "two"}}, "must be numbers"),
        ({"local": {"threads": None}}, "must be numbers"),
        ({"local": {"deterministic": "yes"}}, "true or false"),
        ({"local": {"compile": 1}}, "true or false"),
    ],
)
def test_mistakes_in_params_are_one_sentence(repository, tmp_path, change, named):
    said = yaml.safe_load((repository / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**said, **change}))
    with pytest.raises(XNetsError, match=named) as error:
        make_plan(read_settings(tmp_path / "params.yaml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["scale: [", "", "- 1"])
def test_params_that_are_no_params(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(XNetsError, match=r"params\.yaml"):
        read_settings(tmp_path / "params.yaml")
    with pytest.raises(XNetsError, match="top folder"):
        read_settings(tmp_path / "nowhere.yaml")


def test_scales_name_only_what_exists():
    for name, scale in read_scales().items():
        assert set(scale["items"]) <= set(ITEMS), name
        assert scale["about"]
