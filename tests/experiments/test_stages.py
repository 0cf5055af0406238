"""What the stages do with data that changed, with a paper that lost a row, and without the `dvc` that began them."""

import os
import shutil
import subprocess
import sys

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


@pytest.mark.parametrize("apart", [False, True])
def test_a_stage_of_a_dvc_that_has_ended_says_so_and_ends(repository, apart):
    """What adopts it is of another process group."""
    command = [sys.executable, "-m", "experiments", "no-such-stage"]
    environment = {**os.environ, "DVC_ROOT": str(repository)}
    done = subprocess.run(
        command, cwd=repository, env=environment, start_new_session=apart, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "`dvc` of this stage has ended" in done.stderr) == ((1, True) if apart else (2, False))
    assert "Traceback" not in done.stderr
