"""What the stages do with data that changed and with a paper that lost a row."""

import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import rows
from experiments.stages import ready_data
from xnets.errors import XNetsError


def write_classes(root, grey):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            Image.fromarray(np.full((8, 8, 3), grey, dtype=np.uint8)).save(root / split / name / "0.png")
    return str(root)


def test_another_source_is_packed_anew_and_the_same_one_is_not(tmp_path, capsys):
    a, b = write_classes(tmp_path / "a", 10), write_classes(tmp_path / "b", 200)
    first = ready_data("mine", tmp_path / "data", a)
    assert ready_data("mine", tmp_path / "data", a).digest == first.digest
    assert capsys.readouterr().err.count("preparing") == 1
    second = ready_data("mine", tmp_path / "data", b)
    assert second.digest != first.digest
    assert (second.split("train").images == 200).all()
    assert ready_data("mine", tmp_path / "data", None).digest == second.digest, "no source: what is there"
    with pytest.raises(XNetsError, match="nowhere"):
        ready_data("mine", tmp_path / "data", str(tmp_path / "nowhere"))
    assert ready_data("mine", tmp_path / "data", b).digest == second.digest, "a wrong source loses nothing"


def test_a_damaged_file_is_packed_anew(tmp_path):
    source = write_classes(tmp_path / "a", 10)
    digest = ready_data("mine", tmp_path / "data", source).digest
    (tmp_path / "data" / "mine" / "train.u8").write_bytes(b"")
    assert ready_data("mine", tmp_path / "data", source).digest == digest


@pytest.mark.parametrize("start", ["figure3,X-4,", "table5,G8,", "figure6,"])
def test_a_row_that_is_missing_is_refused(tmp_path, monkeypatch, start):
    shutil.copytree(rows.PAPER, tmp_path / "paper")
    lines = (rows.PAPER / "rows.csv").read_text().splitlines(keepends=True)
    (tmp_path / "paper" / "rows.csv").write_text("".join(line for line in lines if not line.startswith(start)))
    monkeypatch.setattr(rows, "PAPER", tmp_path / "paper")
    rows.read_rows.cache_clear()
    try:
        with pytest.raises(XNetsError, match=rf"rows\.csv has \d+ of the \d+ rows of {start.split(',')[0]}"):
            rows.read_rows()
    finally:
        rows.read_rows.cache_clear()
