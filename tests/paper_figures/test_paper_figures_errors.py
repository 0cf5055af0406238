"""What a user can mend is one sentence that names the file, and exit status 2."""

import json
import re

import pytest

from paper_figures.__main__ import main
from paper_figures.project import enter_project
from xnets.errors import XNetsError

COMMANDS = (["tables"], ["figure", "3"])


@pytest.fixture
def run_file(own) -> str:
    """The name of one run's files."""
    return next((own.results / "runs").glob("X-MobileNet-0.5-4--digits--g1-t1--*.json")).name


def said(capsys, command) -> str:
    """What `command` says on standard error, after checking that it is one sentence and that nothing was made."""
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("paper_figures: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("folder", ["runs", "evaluations"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_run(own, run_file, capsys, folder, command):
    (own.results / folder / run_file).unlink()
    assert f"results/demo/{folder}/{run_file} is missing" in said(capsys, command)
    assert not (own.results / "tables").exists()
    assert not (own.results / "figures").exists()


@pytest.mark.parametrize("folder", ["runs", "evaluations"])
def test_a_surplus_run(own, run_file, capsys, folder):
    surplus = run_file.replace("g1-t1", "g7-t7")
    (own.results / folder / surplus).write_text((own.results / folder / run_file).read_text())
    assert f"{folder}/{surplus} belongs to no run" in said(capsys, ["tables"])


@pytest.mark.parametrize("folder", ["runs", "evaluations"])
def test_a_run_with_another_fingerprint(own, run_file, capsys, folder):
    path = own.results / folder / run_file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0" * 64}))
    assert f"{folder}/{run_file} belongs to another run" in said(capsys, ["figure", "3"])


@pytest.mark.parametrize("folder", ["runs", "evaluations"])
@pytest.mark.parametrize("left", [0, 40])
def test_a_truncated_run(own, run_file, capsys, folder, left):
    path = own.results / folder / run_file
    path.write_text(path.read_text()[:left])
    assert f"{folder}/{run_file} is damaged" in said(capsys, ["tables"])


def test_another_number_of_seeds_than_there_are_runs(own, capsys):
    with open("params.yaml") as file:
        text = file.read()
    with open("params.yaml", "w") as file:
        file.write(text.replace("table5: 2", "table5: 3"))
    assert "--g2-t2--" in said(capsys, ["tables"])


@pytest.mark.parametrize("name", ["cost.csv", "data.json"])
def test_a_missing_file_of_the_scale(own, capsys, name):
    (own.results / name).unlink()
    assert f"results/demo/{name} is missing" in said(capsys, ["figure", "6"])


@pytest.mark.parametrize(
    "content", [b"", b"model,macs\nVGG16,1\n", b'a,"b\n', b"\xff\xfe\x00", b"a,b\n1,2,3\n4\n1,2,3,4,5\n"]
)
def test_a_damaged_cost_file(own, capsys, content):
    (own.results / "cost.csv").write_bytes(content)
    assert "results/demo/cost.csv is damaged" in said(capsys, ["tables"])


def test_a_network_that_was_not_counted(own, capsys):
    path = own.results / "cost.csv"
    path.write_text(re.sub(r"^ResNet-34,.*\n", "", path.read_text(), flags=re.MULTILINE))
    assert "cost.csv does not count ResNet-34, a row of table1" in said(capsys, ["tables"])


def test_a_place_without_params(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "params.yaml is not here" in said(capsys, ["tables"])
    with pytest.raises(XNetsError, match=r"There is no params\.yaml"):
        enter_project()


def test_a_folder_that_cannot_be_written(own, capsys):
    (own.results / "tables").write_text("in the way")
    assert "results/demo/tables" in said(capsys, ["tables"])


@pytest.mark.parametrize("arguments", [[], ["figure"], ["figure", "7"], ["figure", "one"], ["table"]])
def test_a_command_that_is_none(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m paper_figures" in capsys.readouterr().err


def test_help_tells_what_each_figure_shows(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["figure", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "3  MobileNet-0.5 on ImageNet: groups against expanders" in out
    assert "results/<scale>/figures/" in out
