"""Project folders with made-up results (see synthetic_results.py), and the numbers in them found without our code."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_results import write_project

from experiments.settings import Settings, read_settings

CLASSES = {"cifar10": "10", "cifar100": "100", "imagenet": "1000"}


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    return _project(tmp_path_factory, "demo")


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory) -> Path:
    return _project(tmp_path_factory, "cifar")


@pytest.fixture
def demo(demo_folder, monkeypatch) -> Settings:
    """A project at scale demo, which is the working directory; shared, so leave its results as they are."""
    monkeypatch.chdir(demo_folder)
    return read_settings()


@pytest.fixture
def cifar(cifar_folder, monkeypatch) -> Settings:
    """A project at scale cifar, which is the working directory; shared, so leave its results as they are."""
    monkeypatch.chdir(cifar_folder)
    return read_settings()


@pytest.fixture
def own(tmp_path, monkeypatch) -> Iterator[Settings]:
    """A project at scale demo to break, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, "demo")
    return read_settings()


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def accuracies(results: Path, model: str, dataset: str) -> tuple[list[float], list[float]]:
    """Accuracies after the last epoch and after the best one, straight from the run files' names and contents."""
    paths = sorted((results / "runs").glob(f"{model}--{dataset}--g*.json"))
    last = [json.loads((results / "evaluations" / path.name).read_text())["top1"] for path in paths]
    best = [max(epoch["test_top1"] for epoch in json.loads(path.read_text())["epochs"]) for path in paths]
    return last, best


def counts(model: str, dataset: str, counting: str) -> tuple[float, float] | None:
    """(parameters, MACs) from the copy of cost.csv."""
    for line in read_csv(Path(__file__).parent / "cost.csv"):
        if (line["model"], line["num_classes"], line["counting"]) == (model, CLASSES.get(dataset), counting):
            return float(line["parameters"]), float(line["macs"])
    return None


def _project(tmp_path_factory, scale: str) -> Path:
    folder = tmp_path_factory.mktemp(scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_project(folder, scale)
    return folder
