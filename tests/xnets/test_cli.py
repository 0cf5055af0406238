"""The `xnets` command: what it prints, where it prints it, and its exit status."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest

import xnets
from xnets.cli import main, run_command
from xnets.cost import COUNTING_RULES, cost
from xnets.errors import XNetsError
from xnets.models import PAPER_MODELS

NAME = "X-MobileNet-0.5-4"


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_models_lists_every_network_once(capsys):
    assert main(["models"]) == 0
    assert lines(capsys) == list(PAPER_MODELS)


def test_cost_prints_a_row_for_each_counting_rule(capsys):
    assert main(["cost", NAME]) == 0
    header, *rows = lines(capsys)
    assert header.split()[:3] == ["network", "rule", "params"]
    for row, rule in zip(rows, COUNTING_RULES, strict=True):
        c = cost(NAME, rule)
        figures = [c.parameters / 1e6, (c.parameters - c.norms) / 1e6, c.macs / 1e6, c.flops / 1e6]
        name, printed_rule, *numbers = row.split()
        assert (name, printed_rule) == (NAME, rule)
        printed = [float(n.rstrip("M")) for n in numbers[:4]]
        assert printed[:2] == pytest.approx(figures[:2], abs=6e-4)
        assert printed[2:] == pytest.approx(figures[2:], abs=6e-3)
        assert float(numbers[4].rstrip("MiB")) == pytest.approx(c.activation_bytes / 2**20, abs=0.05)


@pytest.mark.parametrize("rule", COUNTING_RULES)
def test_rule_and_json_give_exactly_the_cost(capsys, rule):
    assert main(["cost", NAME, "ResNet-34", "--rule", rule, "--json"]) == 0
    found = [json.loads(line) for line in lines(capsys)]
    costs = [(name, cost(name, rule)) for name in (NAME, "ResNet-34")]
    assert found == [{"name": name, "rule": rule, **asdict(c), "flops": c.flops} for name, c in costs]


def test_classes_and_image_size_are_passed_on(capsys):
    assert main(["cost", "ResNet-34", "--classes", "7", "--image-size", "64", "--json", "--rule", "paper"]) == 0
    (line,) = lines(capsys)
    assert json.loads(line)["macs"] == cost("ResNet-34", "paper", 7, 64).macs != cost("ResNet-34").macs


def test_a_rule_that_does_not_fit_the_network_leaves_the_others_standing(capsys):
    assert main(["cost", "X-VGG16-1", "--json"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["rule"] for line in captured.out.splitlines()] == ["paper"]
    assert "X-VGG16-2" in captured.err
    assert "no single C" in captured.err
    assert main(["cost", "X-VGG16-1"]) == 0
    assert len(lines(capsys)) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["X-Resnet-2-50"], "X-ResNet-2-50"),
        (["X-Resnet-2-50", "--json"], "X-ResNet-2-50"),
        ([NAME, "ResNet-35", "--rule", "paper"], "ResNet-34"),
        (["X-VGG16-1", "--rule", "authors"], "X-VGG16-2"),
        (["X-VGG16-1", "--rule", "dense/C"], "no single C"),
        (["X-MobileNet-0.5-64", "--rule", "paper"], "compression 64 does not fit"),
        (["ResNet-34", "--classes", "0"], "num_classes"),
        (["ResNet-34", "--image-size", "0"], "image_size"),
        (["AlexNet", "--image-size", "8"], "does not take 8x8 images"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_exit_status_2(capsys, arguments, words):
    assert main(["cost", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("xnets: ")
    assert words in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", [[], ["cost"], ["train-everything"], ["cost", NAME, "--rule", "exact"]])
def test_a_wrong_command_line_is_refused_with_its_usage(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: xnets")


@pytest.mark.parametrize("arguments", [["--help"], ["models", "--help"], ["cost", "--help"]])
def test_help_is_printed(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in (("models", "cost") if arguments == ["--help"] else (arguments[0], "usage")))


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert lines(capsys) == [f"xnets {xnets.__version__}"]


def test_run_command_hides_only_what_a_user_can_mend(capsys):
    def raising(error):
        def command():
            raise error

        return command

    assert run_command(raising(XNetsError("no such thing.")), "tool") == 2
    assert capsys.readouterr().err == "tool: no such thing.\n"
    assert run_command(raising(KeyboardInterrupt()), "tool") == 130
    assert (run_command(lambda: None, "tool"), run_command(lambda: 3, "tool")) == (0, 3)
    for bug in (ValueError("a bug"), KeyError("a bug"), RuntimeError("a bug")):
        with pytest.raises(type(bug)):
            run_command(raising(bug), "tool")


class Entry:
    """An entry point, as a package above the library declares it."""

    def __init__(self, name, command=None, lacks="experiments"):
        self.name, self.command, self.lacks, self.module = name, command, lacks, "experiments.cli"

    def load(self):
        if self.command is None:
            raise ModuleNotFoundError("not here", name=self.lacks)
        return lambda commands: commands.add_parser(self.name).set_defaults(run=self.command)


def test_commands_from_above_join_if_they_are_there(capsys, monkeypatch):
    entries = [Entry("sweep"), Entry("plan", lambda args: 4)]
    monkeypatch.setattr("xnets.cli.entry_points", lambda group: entries if group == "xnets.commands" else [])
    assert main(["plan"]) == 4
    assert main(["models"]) == 0
    with pytest.raises(SystemExit):
        main(["sweep"])
    assert "invalid choice: 'sweep'" in capsys.readouterr().err
    entries.append(Entry("broken", lacks="yaml"))
    with pytest.raises(ModuleNotFoundError, match="not here"):
        main(["models"])


def run(code_or_module, *arguments, **kwargs) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, *code_or_module, *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, env=env, timeout=120, **kwargs)


def test_as_a_module_it_lists_models_without_torch():
    code = "import sys; from xnets.cli import main; main(['models']); sys.exit('torch' in sys.modules)"
    assert run(["-c", code], stdout=subprocess.DEVNULL).returncode == 0
    done = run(["-m", "xnets.cli"], "models", stdout=subprocess.PIPE)
    assert (done.stdout.split(), done.stderr, done.returncode) == (list(PAPER_MODELS), "", 0)


def test_an_unknown_name_from_the_shell():
    done = run(["-m", "xnets.cli"], "cost", "X-Resnet-2-50", stdout=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith("xnets: There is no network called 'X-Resnet-2-50'")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_stops_reading_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)  # as `xnets models | head -1` ends
    try:
        done = run(["-m", "xnets.cli"], "models", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
