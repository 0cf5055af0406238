"""Tables 1-5: every number against an independent computation, and the three formats against one another."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from conftest import accuracies, counts, read_csv
from scipy import stats
from synthetic_results import REPOSITORY

from paper_figures.__main__ import main
from paper_figures.frames import item_frame
from paper_figures.table_files import MADE_BY, to_csv, to_latex, to_markdown
from paper_figures.tables import MISSING, build_tables

PAPER = REPOSITORY / "experiments" / "paper"
NUMBERS = (1, 2, 3, 4, 5)
OURS = "ours (demo, digits)"


def as_printed(number: int) -> list[dict[str, str]]:
    """The paper's table, without the heads of sections, which have nothing but a name."""
    lines = [{k: v for k, v in line.items() if k != "bold"} for line in read_csv(PAPER / f"table{number}.csv")]
    return [line for line in lines if sum(bool(value) for value in line.values()) > 1]


def number_in(text: str) -> float:
    return float(re.match(r"[\d.]+", text).group())


@pytest.fixture
def tables(demo):
    return {table.number: table for table in build_tables(demo)}


@pytest.fixture
def data(tables):
    """Each table's csv, read back."""
    return {number: pd.read_csv(io.StringIO(to_csv(table))) for number, table in tables.items()}


def markdown_rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, head first, without footnote marks."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| :--")]
    return [[re.sub(r" <sup>\w</sup>$", "", cell.strip()) for cell in line.strip("|").split("|")] for line in lines]


def latex_rows(text: str) -> list[list[str]]:
    """The cells of a LaTeX table's body as plain text."""
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip()
    plain = re.sub(r"\\textsuperscript\{\w\}", "", body)
    marks = {r"$\pm$": "±", r"$\checkmark$": "✓", r"\%": "%", r"\#": "#", r"\_": "_", r"\&": "&"}
    for written, meant in marks.items():
        plain = plain.replace(written, meant)
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in plain.replace(r"\\", "").splitlines()]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_paper_is_quoted_word_for_word(data, number):
    for name in as_printed(number)[0]:
        shown = data[number]["printed: " + {"section": "Family"}.get(name, name)].astype(str)
        assert list(shown) == [line[name] for line in as_printed(number)]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_row_is_there_in_the_papers_order(data, number):
    name = next(key for key in as_printed(number)[0] if key != "section")
    assert list(data[number]["row"]) == [line[name] for line in as_printed(number)]


def test_printed_numbers_are_those_of_the_paper(data):
    columns = {
        1: {"printed_top1": ("Accuracy", 1), "printed_flops_M": ("#FLOPs (in 100M)", 100)},
        2: {"printed_top1": ("Accuracy", 1), "printed_params_M": ("#Params", 1)},
        3: {"printed_top1": ("Accuracy", 1), "printed_params_M": ("#Params", 1)},
        4: {"printed_top1": ("Accuracy%", 1), "printed_max": ("Max%", 1), "printed_min": ("Min%", 1)},
        5: {"printed_top1": ("Mean Accuracy", 1), "printed_range": ("Range (Max-Min)", 1)},
    }
    for number, wanted in columns.items():
        for column, (name, factor) in wanted.items():
            assert list(data[number][column]) == [factor * number_in(line[name]) for line in as_printed(number)]
    assert list(data[4]["printed_sd"]) == [float(line["Accuracy%"].split("±")[1]) for line in as_printed(4)]


def test_logs_are_those_of_the_authors(data):
    logs = {line["log"]: line for line in read_csv(PAPER / "author_logs.csv")}
    for frame in data.values():
        for row in frame.to_dict("records"):
            if isinstance(row["log"], str):
                log = logs[row["log"]]
                assert (row["log_best"], row["log_final"]) == (float(log["best_top1"]), float(log["final_top1"]))
            else:
                assert np.isnan([row["log_best"], row["log_final"]]).all()


@pytest.mark.parametrize("number", NUMBERS)
def test_our_numbers_are_those_of_the_runs(demo, data, number):
    for row in data[number].to_dict("records"):
        last, best = accuracies(demo.results, row["model"], "digits")
        ours = {name.removeprefix(f"{OURS}: "): value for name, value in row.items() if name.startswith(OURS)}
        if not last:
            assert not isinstance(row["model"], str)  # another's method: there is no network to train
            assert all(np.isnan(value) for value in ours.values())
            continue
        assert ours["n"] == len(last)
        assert ours["mean"] == pytest.approx(np.mean(last))
        assert (ours["min"], ours["max"]) == (min(last), max(last))
        assert ours["best_mean"] == pytest.approx(np.mean(best))
        assert ours["n_test"] == 500
        assert ours["test_se"] == pytest.approx(100 * stats.binom(500, np.mean(last) / 100).std() / 500)
        if len(last) == 1:
            assert np.isnan([ours["sd"], ours["low"], ours["high"]]).all()
        else:
            half = stats.t.ppf(0.975, len(last) - 1) * stats.sem(last)
            assert ours["sd"] == pytest.approx(np.std(last, ddof=1))
            assert ours["low"] == pytest.approx(max(0, np.mean(last) - half))
            assert ours["high"] == pytest.approx(min(100, np.mean(last) + half))


@pytest.mark.parametrize("number", NUMBERS)
def test_costs_are_those_of_the_full_size_network(data, number):
    ends = {"paper": "", "authors": "_authors", "dense/C": "_dense_over_C"}
    for row in data[number].to_dict("records"):
        for counting, end in ends.items():
            counted = counts(row["model"], row["dataset"], counting)
            found = row[f"params_M{end}"], row[f"macs_M{end}"]
            if counted is None:
                assert np.isnan(found).all()
            else:
                assert found == (pytest.approx(counted[0] / 1e6), pytest.approx(counted[1] / 1e6))


def test_table1_counts_two_flops_for_each_mac(tables):
    head, *rows = markdown_rows(to_markdown(tables[1]))
    at = head.index("counted by us: FLOPs, 100M")
    shown = {row[1]: float(row[at]) for row in rows}
    assert shown["X-ResNet-2-50"] == pytest.approx(2 * counts("X-ResNet-2-50", "imagenet", "paper")[1] / 1e8, abs=0.05)
    assert shown["ResNet-34"] == pytest.approx(73.3)


@pytest.mark.parametrize("number", NUMBERS)
def test_markdown_latex_and_csv_say_the_same(tables, data, number):
    head, *rows = markdown_rows(to_markdown(tables[number]))
    in_latex = latex_rows(to_latex(tables[number]))
    said = [
        [cell.replace("✗", "$\\times$").replace("×", "$\\times$").replace(MISSING, "--") for cell in row]
        for row in rows
    ]
    assert in_latex == said
    decimals = {"params": 2, "MACs": 1, "FLOPs": 1}
    factors = {"params": 1, "MACs": 1, "FLOPs": 0.02}
    for row, line in zip(data[number].to_dict("records"), rows, strict=True):
        for name, cell in zip(head, line, strict=True):
            group, _, what = name.partition(": ")
            if group == "printed":
                assert cell == str(row[name])
            elif group == "authors' log, %":
                value = row["log_best" if what == "best epoch" else "log_final"]
                assert cell == (MISSING if np.isnan(value) else f"{value:.2f}")
            elif group == "counted by us":
                unit = what.split(",")[0]
                end = "_authors" if "authors' network" in what else "_dense_over_C" if "dense / C" in what else ""
                value = row[("params_M" if unit == "params" else "macs_M") + end] * factors[unit]
                assert cell == (MISSING if np.isnan(value) else f"{value:.{decimals[unit]}f}")
            else:
                assert group == OURS
                assert cell == our_text(row, what)


def our_text(row: dict, what: str) -> str:
    n, mean, sd, low, high, best = (row[f"{OURS}: {key}"] for key in ("n", "mean", "sd", "low", "high", "best_mean"))
    if np.isnan(n):
        return MISSING
    if what == "best epoch, %":
        return f"{best:.2f}"
    return f"{mean:.2f} (1)" if n == 1 else f"{mean:.2f} ± {sd:.2f} [{low:.2f}, {high:.2f}] ({n:.0f})"


@pytest.mark.parametrize("number", NUMBERS)
def test_latex_is_well_formed(tables, number):
    text = to_latex(tables[number])
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text).group(1))
    assert {len(row) for row in latex_rows(text)} == {columns} == {len(tables[number].columns)}
    assert sum(int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", text)) == columns
    assert not re.search(
        r"(?<!\\)[%#_]", text.replace("% needs", "").replace("% made by", "").replace("{%\n", "{").split(MADE_BY)[0]
    )
    assert not set(text) - {chr(code) for code in range(128)} - {"é"}  # pdflatex takes no other letter for granted


@pytest.mark.parametrize("number", NUMBERS)
def test_the_scale_stands_on_the_face(tables, data, number):
    table = tables[number]
    for text in (to_markdown(table), to_latex(table)):
        assert "Scale demo: scikit-learn's 8x8 digits" in text
        assert "NOT a reproduction" in text
        assert OURS in text
        assert MADE_BY in text.splitlines()[-1]
    assert set(data[number]["scale"]) == {"demo"}
    assert set(data[number]["made_by"]) == {MADE_BY}
    accuracies_of_ours = [name for name in data[number] if "mean" in name or "best_mean" in name]
    assert all(name.startswith(OURS) or name.startswith("printed") for name in accuracies_of_ours)


def test_notes_stand_below_the_table(tables):
    text = to_markdown(tables[2])
    assert "X-VGG16-1 <sup>a</sup>" in text
    assert re.search(r"- <sup>a</sup> degrees not stated in the paper: 64 up to 256 channels, 32 at 512", text)
    assert "500 images" in text


def test_what_the_scale_does_not_train_stays_with_printed_values(cifar):
    table = build_tables(cifar)[0]
    assert list(table.data["ours (cifar): n"].isna()) == [True] * 14
    assert "Scale cifar does not train these networks." in to_markdown(table)
    assert not any(column.group.startswith("ours") for column in table.columns)
    assert [column.cells[0] for column in table.columns if column.name == "Accuracy"] == ["69.23%"]
    assert any(column.name == "FLOPs, 100M" and column.cells[0] == "37.8" for column in table.columns)


def test_real_data_are_not_disclaimed(cifar):
    text = to_markdown(build_tables(cifar)[3])
    assert "ours (cifar, cifar10)" in text
    assert "NOT a reproduction" not in text


def test_rows_that_share_a_configuration_share_its_runs(demo):
    frames = {item: item_frame(item, demo).set_index("model") for item in ("table2", "table4", "figure3", "table5")}
    assert frames["table2"].loc["VGG16", "ours_n"] == frames["table4"].loc["VGG16", "ours_n"] == 10
    assert frames["figure3"].loc["X-MobileNet-0.5-4", "ours_n"] == 2
    ours = [name for name in frames["figure3"] if name.startswith("ours")]
    pd.testing.assert_frame_equal(frames["figure3"][ours], frames["table5"][ours])


def test_files_are_the_same_to_the_last_byte_when_made_again(own):
    folder = own.results / "tables"
    assert main(["tables"]) == 0
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {f"table{n}.{kind}" for n in NUMBERS for kind in ("csv", "md", "tex")} | {"all.md"}
    assert main(["tables"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    together = first["all.md"].decode()
    for n in NUMBERS:
        table = first[f"table{n}.md"].decode()
        assert table[: table.rindex("\nMade by")] in together
