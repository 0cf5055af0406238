"""A table as .csv (all numbers in full), Markdown and LaTeX (booktabs)."""

import re
from itertools import groupby
from pathlib import Path

from paper_figures.csv_text import csv_text
from paper_figures.tables import MISSING, Column, Table
from xnets.files import write_text

MADE_BY = "python -m paper_figures tables"


def write_tables(tables: list[Table], folder: Path) -> None:
    """Write table<n>.csv, .md and .tex, and all.md with all of them, into `folder`."""
    files = {"all.md": "\n".join(_body(table) for table in tables) + _made_in_markdown()}
    for table in tables:
        files[f"table{table.number}.csv"] = to_csv(table)
        files[f"table{table.number}.md"] = to_markdown(table)
        files[f"table{table.number}.tex"] = to_latex(table)
    for name, text in files.items():
        write_text(folder / name, text)


def to_csv(table: Table) -> str:
    """One line a row; the last column says how the file was made, so that every line of it is data."""
    data = table.data.assign(made_by=MADE_BY)
    return csv_text(data)


def to_markdown(table: Table) -> str:
    """For GitHub: caption, what our numbers are, the table, its footnotes, how it was made."""
    return _body(table) + _made_in_markdown()


def to_latex(table: Table) -> str:
    """A table* for the paper's text; needs booktabs and graphicx, and amssymb for \\checkmark."""
    columns, notes = table.columns, _footnotes(table.notes)
    groups = [(name, len(list(members))) for name, members in groupby(columns, key=lambda column: column.group)]
    head = " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{_latex(name)}}}" for name, n in groups)
    lines = [" & ".join(_latex(column.cells[i]) for column in columns) for i in range(len(table.notes))]
    for i, mark in _marks(table.notes, notes).items():
        at = _name_column(columns)
        cells = [_latex(column.cells[i]) for column in columns]
        cells[at] += rf"\textsuperscript{{{mark}}}"
        lines[i] = " & ".join(cells)
    first, rules = 1, []
    for _, n in groups:
        rules.append(rf"\cmidrule(lr){{{first}-{first + n - 1}}}")
        first += n
    below = [
        *(rf"\textsuperscript{{{mark}}} {_latex(note)}." for note, mark in notes.items()),
        *map(_latex, table.remarks),
    ]
    return "\n".join([
        "% needs \\usepackage{booktabs,graphicx,amssymb}",
        r"\begin{table*}", r"\centering",
        rf"\caption{{{_latex(table.caption)} {_latex(table.scale_line)}}}", rf"\label{{tab:xnets-{table.number}}}",
        r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{{_alignment(columns)}}}", r"\toprule",
        head + r" \\", " ".join(rules), " & ".join(map(_heading, columns)) + r" \\", r"\midrule",
        *(line + r" \\" for line in lines),
        r"\bottomrule", r"\end{tabular}}", "", r"\smallskip", r"\begin{minipage}{\textwidth}\footnotesize",
        *(line + r"\par" for line in below), r"\end{minipage}", r"\end{table*}", f"% made by: {MADE_BY}", "",
    ])  # fmt: skip


def _body(table: Table) -> str:
    columns, notes = table.columns, _footnotes(table.notes)
    marks = _marks(table.notes, notes)
    cells = [[column.cells[i] for column in columns] for i in range(len(table.notes))]
    for i, mark in marks.items():
        cells[i][_name_column(columns)] += f" <sup>{mark}</sup>"
    heads = [f"{column.group}: {column.name}" for column in columns]
    bars = [":---" if side == "l" else "---:" for side in _alignment(columns)]
    lines = [f"| {' | '.join(line)} |" for line in (heads, bars, *cells)]
    below = [
        *(f"- <sup>{mark}</sup> {note}." for note, mark in notes.items()),
        *(f"- {remark}" for remark in table.remarks),
    ]
    parts = [f"## Table {table.number}. {table.caption}", f"**{table.scale_line}**", "\n".join(lines), "\n".join(below)]
    return "\n\n".join(parts) + "\n"


def _made_in_markdown() -> str:
    return f"\nMade by `{MADE_BY}`.\n"


def _footnotes(notes: list[str]) -> dict[str, str]:
    """Each different note and its letter."""
    return {note: "abcdefghijklmnopqrstuvwxyz"[i] for i, note in enumerate(dict.fromkeys(filter(None, notes)))}


def _marks(notes: list[str], letters: dict[str, str]) -> dict[int, str]:
    return {i: letters[note] for i, note in enumerate(notes) if note}


def _name_column(columns: list[Column]) -> int:
    """Where the row's name stands: the first column, or the second where the first is its family."""
    return int(columns[0].name == "Family")


def _alignment(columns: list[Column]) -> str:
    """l for words, r for numbers, column by column."""
    return "".join("r" if any(re.match(r"\d", cell) for cell in column.cells) else "l" for column in columns)


def _heading(column: Column) -> str:
    """A LaTeX heading, broken at its commas."""
    broken = _latex(column.name).replace(", ", r" \\ ")
    return rf"\shortstack{{\rule{{0pt}}{{2.4ex}}{broken}}}"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "✗": r"$\times$",
    "✓": r"$\checkmark$", MISSING: "--",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
