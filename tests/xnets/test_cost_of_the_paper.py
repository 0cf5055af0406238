"""Every count of experiments/paper/compare.csv and figure_points.csv."""

import re
from functools import cache

import pytest

from tests.xnets.counting import counted, layer_macs
from tests.xnets.paper import rows
from xnets.cost import Cost, count
from xnets.models import build, parse_name
from xnets.models.alexnet import AlexNet
from xnets.models.builder import Builder
from xnets.models.densenet import DenseNetBC

HEAD = "random-by-smaller-side"  # the rule of the authors' released layers
NUMBER = r"(\d+\.\d+)"
COMPARE, POINTS, LOGS = rows("compare.csv"), rows("figure_points.csv"), rows("author_logs.csv")


@cache
def dense_transitions(name, classes) -> Cost:
    parsed = parse_name(name)
    builder = Builder("X", parsed.compression, frozenset({"first", "last", "transition"}), device="meta")
    return count(DenseNetBC(builder, classes, parsed.depth, parsed.growth), 32)


def x_alexnet(*degrees) -> Cost:
    return count(AlexNet(Builder("X", device="meta"), 1000, degrees), 224)


# --- compare.csv -----------------------------------------------------------------------------------------------------

UNITS = {"100M FLOPs": 1e8, "M FLOPs": 1e6, "B FLOPs": 1e9, "M params": 1e6, "M": 1e6}


def network(item) -> str:
    """The network an item of compare.csv is about."""
    families = {"resnet": "ResNet", "densenet": "DenseNet-BC"}
    if match := re.fullmatch(r"(dense|X-2) (resnet|densenet)(\d+)", item):
        kind, family, depth = match.groups()
        return f"{families[family]}-{depth}" if kind == "dense" else f"X-{families[family]}-2-{depth}"
    if match := re.fullmatch(r"MobileNet-0\.5 g=(\d+)", item):
        return "MobileNet-0.5" if match[1] == "1" else f"X-MobileNet-0.5-{match[1]}"
    if match := re.fullmatch(r"X-DenseNet-BC-(\d+)-(\d+)-(\d+) (FLOPs|params)", item):
        return f"X-DenseNet-BC-{match[3]}-{match[1]}-{match[2]}"
    others = {
        "DenseNet-BC-40-200 dense": "DenseNet-BC-40-200", "X-DenseNet-BC-40-200 C=30": "X-DenseNet-BC-30-40-200",
        "VGG16-Orig": "VGG16", "X-VGG16-1": "X-VGG16-1", "X-VGG16-2": "X-VGG16-2",
        "AlexNet-Orig": "AlexNet", "X-AlexNet-1": "X-AlexNet-1", "X-AlexNet-2": "X-AlexNet-2",
    }  # fmt: skip
    return others[item]


def classes_of(row) -> int | None:
    return 100 if row["source"] == "5.5" else None  # section 5.5 and Fig. 6 are about CIFAR-100


def figure(row, c: Cost) -> float:
    """What the row's unit asks of a cost."""
    if row["source"] == "Table 1":
        return c.flops
    return c.macs if "FLOPs" in row["unit"] else c.parameters


def printed_dense_half(row):
    dense = next(r for r in COMPARE if r["item"] == row["item"].replace("X-2", "dense"))
    assert cost_of(row, "dense/C").flops == cost_of(dense).flops / 2
    return float(dense["printed"]) * 1e8 / 2


def mobilenet_reading(row):
    """150M less what g saves of the multiply-adds of pointwise convolutions 2 to 13."""
    pointwise = mobilenet_pointwise()[1:]
    assert (len(pointwise), round(sum(pointwise) / 1e6, 2)) == (12, 128.45)
    g = parse_name(network(row["item"])).compression or 1
    assert cost_of(row).macs == counted("MobileNet-0.5").macs - sum(pointwise) * (1 - 1 / g)
    return 150e6 - sum(pointwise) * (1 - 1 / g)


@cache
def mobilenet_pointwise() -> list[int]:
    layers = layer_macs(build("MobileNet-0.5"), 224)
    return [macs for layer, macs in layers if getattr(layer, "kernel_size", None) == (1, 1)]


def cost_of(row, rule="paper", graph=None, classes=None) -> Cost:
    return counted(network(row["item"]), rule, classes or classes_of(row), graph)


# best_reading -> the value in single FLOPs or parameters
BEST = {
    "2*MACs, 224x224, conv+fc": lambda r: cost_of(r).flops,
    "printed dense / 2 (nothing kept dense)": printed_dense_half,
    "150 - 128.45*(1-1/g): MACs, standard 0.5 net, pointwise 2..13 sparse, dense total rounded up to 150":
        mobilenet_reading,
    "dense MACs / 2 (conv+fc, nothing kept dense)": lambda r: cost_of(r, "dense/C").macs,
    "paper rule incl. BN+bias (10 classes), transitions sparse": lambda r: cost_of(r).parameters,
    "MACs": lambda r: cost_of(r).macs,
    "MACs/30 truncated": lambda r: cost_of(r, "dense/C").macs,
    "weights+BN+bias": lambda r: cost_of(r).parameters,
    "CANDIDATE degrees 64*6_32*6_256 (out-sided, weights only)": lambda r: cost_of(r).weights,
    "CANDIDATE degrees 64*6_16*6_128 (out-sided, weights+BN)": lambda r: cost_of(r).weights + cost_of(r).norms,
    "torchvision, weights+bias": lambda r: cost_of(r).parameters,
    "fc6,fc7 D=128/128, fc8 + convs dense": lambda r: cost_of(r).weights,
    "fc6+fc7 degrees sum 768 (256/512, 512/256 or 384/384), fc8 + convs dense": lambda r: cost_of(r).weights,
}  # fmt: skip


def after_the_eighth(row):
    g = parse_name(network(row["item"])).compression or 1
    return counted("MobileNet-0.5").macs - sum(mobilenet_pointwise()[3:]) * (1 - 1 / g)


# other_readings, one pattern for each -> the values of its numbers
OTHERS = [
    (f"paper rule {NUMBER}", lambda r: [figure(r, cost_of(r))]),
    (f"HEAD(?: rule)?(?:, all layers)? {NUMBER}", lambda r: [figure(r, cost_of(r, graph=HEAD))]),
    (rf"as trained \(dense (?:downsample|transitions)\) {NUMBER}", lambda r: [figure(r, cost_of(r, "authors"))]),
    (f"as trained HEAD rule {NUMBER}", lambda r: [figure(r, cost_of(r, "authors", HEAD))]),
    (f"exact MACs {NUMBER}", lambda r: [cost_of(r).macs]),
    (f"net in code/log {NUMBER}", lambda r: [cost_of(r, "authors").macs]),
    (f"only rows after 8 of MobileNet Table 1 sparse {NUMBER}", lambda r: [after_the_eighth(r)]),
    (f"dense transitions {NUMBER}",
     lambda r: [figure(r, dense_transitions(network(r["item"]), classes_of(r) or 10))]),
    (f"dense/2 {NUMBER}", lambda r: [cost_of(r, "dense/C").parameters]),
    (f"weights only {NUMBER}", lambda r: [cost_of(r).weights]),
    (f"HEAD weights only {NUMBER}", lambda r: [cost_of(r, graph=HEAD).weights]),
    (rf"100 classes {NUMBER} \(dense trans\. {NUMBER}\)",
     lambda r: [cost_of(r, classes=100).parameters, dense_transitions(network(r["item"]), 100).parameters]),
    (rf"released 64\*3_16\*9_128 = {NUMBER} \(out-sided\) / {NUMBER} \(HEAD\)", lambda r: released_vgg()),
    (f"released config {NUMBER}/{NUMBER}", lambda r: released_vgg()),
    (rf"512/512/1024 = {NUMBER} \(truncates to 7\.6\)", lambda r: [x_alexnet(512, 512, 1024).weights]),
    (rf"512/1024/1024 = {NUMBER} \(truncates to 9\.7\)", lambda r: [x_alexnet(512, 1024, 1024).weights]),
    (rf"released 256/256/512 = {NUMBER} \(12\.03x, as its comment says\)", lambda r: [cost_of(r, "authors").weights]),
]  # fmt: skip


def released_vgg():
    return [counted("X-VGG16-2", "authors").weights, counted("X-VGG16-2", "authors", graph=HEAD).weights]


def agrees(value, text, digits=0) -> bool:
    """Whether `value` rounds to the number as it was written; trailing zeros may have been dropped up to `digits`."""
    digits = max(digits, len(text.partition(".")[2]))
    return abs(value - float(text)) <= 0.5 * 10**-digits * (1 + 1e-6)


@pytest.mark.parametrize("row", COMPARE, ids=lambda row: f"{row['source']} {row['item']}")
def test_every_row_of_compare_is_counted(row):
    unit = UNITS[row["unit"]]
    value = BEST[row["best_reading"]](row) / unit
    assert agrees(value, row["counted"], digits=2), f"{value} for {row['counted']}"
    if row["other_readings"]:
        for reading in row["other_readings"].split("; "):
            known = [(m, f) for m, f in ((re.fullmatch(pattern, reading), f) for pattern, f in OTHERS) if m]
            assert len(known) == 1, f"no count for the reading {reading!r}"
            (match, values) = known[0]
            for text, value in zip(match.groups(), values(row), strict=True):
                assert agrees(value / unit, text), f"{reading}: {value / unit}"


def test_compare_holds_each_number_once():
    assert len(COMPARE) == 35
    assert len({(row["source"], row["item"]) for row in COMPARE}) == len(COMPARE)


@pytest.mark.parametrize("degrees", [(256, 512, None), (512, 256, None), (384, 384, None)])
def test_x_alexnet_2_is_as_large_however_its_degrees_are_split(degrees):
    assert x_alexnet(*degrees).weights == counted("X-AlexNet-2").weights


# --- figure_points.csv -----------------------------------------------------------------------------------------------


def network_of_point(row) -> str:
    series, label = row["series"], row["label"]
    if row["figure"] == "3":
        return {"Base": "MobileNet-0.5"}.get(label, label.replace("-", "-MobileNet-0.5-"))
    if row["figure"] == "4":
        return f"DenseNet-BC-{label}" if series == "DenseNet-BC" else label.replace("X-", "X-DenseNet-BC-")
    if row["figure"] == "6":
        return series if label == "dense" else series.replace("X-DenseNet-BC", f"X-DenseNet-BC-{label[2:]}")
    return label


def was_logged(row, name) -> bool:
    """Whether the authors left a log of this CIFAR network, on this data set."""
    parts = [str(part) for part in (parse_name(name).depth, parse_name(name).growth, parse_name(name).compression)]
    return any([log["depth"], log["growth"], log["C"]] == parts and log["dataset"] == row["dataset"] for log in LOGS)


@pytest.mark.parametrize("row", POINTS, ids=lambda r: " ".join(r[k] for k in ("figure", "dataset", "series", "label")))
def test_every_point_of_the_figures_is_counted(row):
    name, classes = network_of_point(row), {"cifar10": 10, "cifar100": 100, "ImageNet": 1000}[row["dataset"]]
    parsed = parse_name(name)
    doubled = "2*MACs" in row["x_name"]
    assert doubled == (row["figure"] not in ("3", "4", "6"))
    digits, params_digits = {"3": (3, 4), "4": (2, 4), "6": (2, 4)}.get(row["figure"], (0, 3))
    columns = {"x_MACs_over_C": "dense/C", "x_counted_paper_rule": "paper", "x_counted_as_trained": "authors"}
    no_log = parsed.kind == "X" and row["dataset"] != "ImageNet" and not was_logged(row, name)
    blank = {"x_counted_as_trained", "params_M_as_trained"} if no_log else set()
    if parsed.family == "mobilenet" and parsed.kind:
        blank = {"x_MACs_over_C"}
    elif parsed.family == "mobilenet":
        digits_over_c = 1  # 149.5 there, 149.497 beside it
        assert agrees(counted(name).macs / 1e6, row["x_MACs_over_C"], digits_over_c)
        del columns["x_MACs_over_C"]
    for column, rule in columns.items():
        assert (row[column] == "") == (column in blank), column
        if row[column]:
            value = counted(name, rule, classes).macs / 1e6 * (2 if doubled else 1)
            assert abs(value - float(row[column])) <= 0.5001 * 10**-digits, f"{column}: {value}"
    for column, rule in (("params_M_paper_rule", "paper"), ("params_M_as_trained", "authors")):
        assert (row[column] == "") == (column in blank), column
        if row[column]:
            value = counted(name, rule, classes).parameters / 1e6
            assert abs(value - float(row[column])) <= 0.5001 * 10**-params_digits, f"{column}: {value}"
