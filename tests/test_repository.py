"""The repository's own promises: one direction of imports, one set of versions, a README whose commands exist."""

import ast
import csv
import re
import statistics
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ABOVE = {
    "xnets": {"experiments", "paper_figures", "slurm", "benchmarks", "dvc", "mlflow", "submitit", "pandas", "yaml"},
    "experiments": {"paper_figures", "slurm", "benchmarks"},
    "slurm": {"paper_figures", "benchmarks"},
    "paper_figures": {"slurm", "benchmarks"},
    "benchmarks": {"paper_figures", "slurm"},
}


def imported(code: ast.AST) -> set[str]:
    """The full names of the modules that are imported, and of what is taken from them, which may be modules too."""
    found = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imports(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}


@pytest.mark.parametrize("package", ABOVE)
def test_imports_run_one_way(repository, package):
    for path in (repository / package).rglob("*.py"):
        assert not imports(path) & ABOVE[package], path


# A stage depends on all that it imports, except what only starts it, keeps runs, or says where and when they train.
NO_DEPENDENCIES = {"__main__", "processes", "executors", "estimate", "progress", "store"}
# What `python -m` runs: the module that holds its commands, one function each.
COMMANDS = {
    "experiments": "experiments/stages.py",
    "experiments.theory": "experiments/theory/__main__.py",
    "paper_figures": "paper_figures/__main__.py",
}
# Modules that a command finds by name, which no import statement shows.
BY_NAME = {
    "figure": "paper_figures/figure{}.py",
    "theory": "paper_figures/theory/{}.py",
    "studies": "paper_figures/studies/*.py",
}


def modules_of(repository: Path, package: str, command: str = "", *arguments: str) -> set[Path]:
    """The modules of experiments/ and paper_figures/ that a stage depends on, by what they import."""
    tree = ast.parse((repository / COMMANDS[package]).read_text())
    others = [n for n in tree.body if isinstance(n, ast.FunctionDef) and command not in ("", n.name.lstrip("_"))]
    names = set().union(*(imported(node) for node in tree.body if node not in others))
    found, todo = set(), {repository / COMMANDS[package]}
    if package == "paper_figures" and command in BY_NAME:
        todo |= set(repository.glob(BY_NAME[command].format(*arguments)))
    while todo:
        found |= todo
        for path in todo - {repository / COMMANDS[package]}:
            names |= imported(ast.parse(path.read_text()))
        ours = {name for name in names if name.split(".")[0] in ("experiments", "paper_figures")}
        paths = {repository / f"{name.replace('.', '/')}.py" for name in ours}
        todo = {path for path in paths if path.exists() and path.stem not in NO_DEPENDENCIES} - found
    return {path.relative_to(repository) for path in found if path.stem not in NO_DEPENDENCIES}


def test_stages_depend_on_what_they_import(repository):
    for name, stage in yaml.safe_load((repository / "dvc.yaml").read_text())["stages"].items():
        variable, items = next(iter(stage.get("matrix", {"": [""]}).items()))
        for item in items:
            command = stage["cmd"].replace(f"${{item.{variable}}}", str(item)).split()
            deps = {Path(dep.replace(f"${{item.{variable}}}", str(item))) for dep in stage["deps"]}
            assert command[:3] == ["exec", "python", "-m"]
            needed = modules_of(repository, *command[3:])
            assert needed
            missing = {str(module) for module in needed if not deps & {module, *module.parents}}
            assert not missing, f"deps of {name} in dvc.yaml lack {sorted(missing)}"


def locked(repository: Path) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in (repository / "requirements.lock").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line)
            found.setdefault(requirement.name.lower(), []).append(requirement)
    return found


def declared(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(text) for texts in lists for text in texts]
    return [requirement for requirement in requirements if requirement.name != "xnets"]


def test_lock_file_pins_everything_declared(repository):
    lock = locked(repository)
    assert all(
        len(pin.specifier) == 1 and str(pin.specifier).startswith("==") for pins in lock.values() for pin in pins
    )
    for requirement in declared(repository):
        pins = lock.get(requirement.name.lower())
        assert pins, f"{requirement.name} is not in requirements.lock: make lock"
        for pin in pins:
            version = str(pin.specifier).removeprefix("==")
            assert requirement.specifier.contains(version), f"{pin} against {requirement}"


def test_environment_yml_installs_the_lock_file(repository):
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [entry for entry in environment["dependencies"] if str(entry).startswith("python=")]
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python.split("=")[1])


def test_what_runs_here_is_what_is_locked(repository):
    """The tests speak for the pinned versions only if those are what is installed."""
    from importlib.metadata import version

    for name in ("torch", "torchvision", "dvc", "mlflow", "numpy"):
        pins = [pin for pin in locked(repository)[name] if pin.marker is None or pin.marker.evaluate()]
        assert Version(version(name)).public in {str(pin.specifier).removeprefix("==") for pin in pins}


def test_make_targets_in_the_readme_exist(repository):
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", (repository / "README.md").read_text()))
    assert {"repro", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize("page", ["README.md", "docs/cluster.md"])
def test_pictures_and_links_exist(repository, page):
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (repository / page).read_text())
    assert targets
    for target in targets:
        assert (repository / page).parent.joinpath(target).exists(), target


def test_the_readmes_results_are_those_of_the_published_runs(repository):
    text = (repository / "README.md").read_text()
    claims, page = (repository / "docs" / "published" / "all.md").read_text().split("## Scale cifar-short")
    done, wanted = re.search(r"(\d+)\s+of the study's (\d+) runs", text).groups()
    assert f"- groups-or-expanders: {done} of {wanted} runs" in page
    with (repository / "docs" / "published" / "cifar-short-groups-or-expanders.csv").open() as file:
        runs = [(row["network"], row["graph"], row["init"], float(row["top1"])) for row in csv.DictReader(file)]
    assert len(runs) == int(done)
    names = {"random expander": "random", "groups": "grouped", "groups, channels shuffled": "grouped-shuffled"}
    rows = re.findall(r"^\| (.+) \| ([\d.]+) % \| ([\d.]+) % \|$", text, flags=re.M)
    assert [name for name, *_ in rows] == list(names)
    said = {
        (names[name], init): float(percent)
        for name, *both in rows
        for init, percent in zip(("torch", "sparse-aware"), both, strict=True)
    }
    for (graph, init), percent in said.items():
        found = [top1 for network, *factors, top1 in runs if network.startswith("X-") and factors == [graph, init]]
        assert (len(found), round(statistics.mean(found), 1)) == (3, percent), (graph, init)
    dense = [top1 for network, *_, top1 in runs if network == "MobileNet-0.5"]
    assert f"| dense MobileNet-0.5 ({len(dense)} runs) | {statistics.mean(dense):.1f} % |" in text
    beaten = re.findall(r"^\| Expanders beat groups at .* ([\d.]+) \[([\d.]+), ([\d.]+)\]", claims, flags=re.M)
    for (points, low, high), words in zip(beaten, ("points (95 % interval ", "("), strict=True):
        assert f"{float(points):.1f} {words}{float(low):.1f} to {float(high):.1f})" in text


def test_the_readme_counts_the_studies_of_each_scale(repository):
    studies = yaml.safe_load((repository / "experiments" / "studies.yaml").read_text()).values()
    scales = yaml.safe_load((repository / "experiments" / "scales.yaml").read_text())
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", (repository / "README.md").read_text(), flags=re.M))
    assert rows.keys() == scales.keys()
    for scale, about in rows.items():
        said = re.search(r"\b(\w+) studies\b", about)
        counts = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
        assert (counts[said[1]] if said else 0) == sum(scale in study["scales"] for study in studies), scale


def test_ci_runs_the_readmes_test_command(repository):
    lines = [line for line in (repository / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["set -eu", 'cd "$(dirname "$0")/.."', "make test"]


def test_nothing_needs_what_a_user_does_not_have(repository):
    for folder in ("xnets", "experiments", "paper_figures", "tests", "slurm"):
        for path in (repository / folder).rglob("*.py"):
            if path != Path(__file__):
                assert "../shared" not in path.read_text(), path
