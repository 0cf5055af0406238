"""The studies of studies.yaml as cells and runs beside the paper's rows."""

import hashlib
from dataclasses import replace
from itertools import product

import pytest
import yaml

from experiments import studies as studies_module
from experiments.plan import make_plan
from experiments.rows import read_rows
from experiments.scales import read_scales
from experiments.settings import Settings, read_settings
from experiments.studies import STUDIES, read_studies
from xnets.cost import cost
from xnets.errors import XNetsError
from xnets.models import build_spec

ONE_SEED = Settings("demo", {"table1": 1})
# sha256 of the sorted fingerprints of the demo's rows, one seed each, on data with the digest "digest". If it changes,
# every run of the demo is trained again: only with a reason.
DEMO = "0b97a8d0cfa56527cc278cc28a8a74def9758b91ac99568dfda257be00fee17f"


@pytest.fixture
def settings(repository):
    return read_settings(repository / "params.yaml")


def cells_of(plan, study):
    return [cell for cell in plan.cells if cell.study == study]


def fingerprints(cells):
    return {run.fingerprint for cell in cells for run in cell.runs("digest")}


def write(tmp_path, text):
    """A studies.yaml."""
    path = tmp_path / "studies.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return path


def test_no_run_of_the_paper_is_changed_by_studies(settings):
    with_studies, without = make_plan(settings), make_plan(replace(settings, studies=()))
    rows = [cell for cell in with_studies.cells if not cell.study]
    assert rows == list(without.cells)
    assert fingerprints(rows) < fingerprints(with_studies.cells)
    assert {cell.study for cell in with_studies.cells} == {"", "connectivity", "stability"}


def test_the_demos_fingerprints_are_what_they_always_were():
    found = sorted(fingerprints(make_plan(ONE_SEED).cells))
    assert hashlib.sha256("\n".join(found).encode()).hexdigest() == DEMO


def test_runs_that_are_shared_are_planned_once(settings):
    plan = make_plan(settings)
    runs = plan.runs(missing_ok=True)
    assert len(runs) == len(set(runs))
    items = plan.runs_of_items(missing_ok=True)
    assert list(items)[-2:] == ["connectivity", "stability"]
    assert len(items["stability"]) == 16
    assert len(set(items["stability"]) & set(items["table4"])) == 4, "equal seeds are Table 4's"
    asked = settings.seeds["table4"]["X-DenseNet-BC-2-40-24"]
    (row,) = [c for c in plan.cells if not c.study and c.model.name == "X-DenseNet-BC-2-40-24"]
    assert row.seeds == tuple((i, i) for i in range(asked)), "crossed runs are no independent runs of a row"


def test_the_family_differs_in_the_graph_alone_and_has_equal_edges(settings):
    cells = cells_of(make_plan(settings), "connectivity")
    assert len(cells) == 8
    assert {replace(cell.model, graph="random") for cell in cells} == {
        replace(cells[0].model, graph="random"),
    }
    assert all(cell.seeds == ((0, 0), (1, 1), (2, 2)) for cell in cells)
    counts = {sum(p.numel() for p in build_spec(cell.model, 0).parameters()) for cell in cells}
    assert len(counts) == 1


def test_the_demos_studies_stay_cheap(settings):
    cells = [cell for cell in make_plan(settings).cells if cell.study]
    assert len(fingerprints(cells) - fingerprints(make_plan(replace(settings, studies=())).cells)) <= 40
    assert all(cell.protocol.epochs <= 5 for cell in cells)


def test_the_study_of_groups_and_expanders_on_cifar100(settings):
    plan = make_plan(replace(settings, scale="cifar-short"))
    studies = {name: [cell for cell in plan.cells if cell.study == name] for name in read_studies("cifar-short")}
    cells = studies["groups-or-expanders"]
    runs = {name: {run for cell in mine for run in cell.runs("d" * 64)} for name, mine in studies.items()}
    assert {name: len(mine) for name, mine in runs.items()} == {
        "groups-or-expanders": 111, "groups-or-expanders-seeds": 9,
    }  # fmt: skip
    shared = runs["groups-or-expanders"] & runs["groups-or-expanders-seeds"]
    assert {(run.graph_seed, run.train_seed) for run in shared} == {(i, i) for i in range(3)}, "each seed with each"
    found = {(cell.model.name, cell.model.graph, cell.model.init): cell for cell in cells}
    sparse = {(f"X-MobileNet-0.5-{c}", graph, init) for graph in ("random", "grouped", "grouped-shuffled")
              for init in ("torch", "sparse-aware", "authors") for c in (2, 4, 8, 16)}  # fmt: skip
    assert set(found) == sparse | {("MobileNet-0.5", "random", "torch")}
    for cell in cells:
        assert (cell.dataset, cell.model.num_classes, cell.model.narrow, cell.model.drop_strides) == (
            "cifar100", 100, 1, 1,
        )  # fmt: skip
        protocol = cell.protocol
        assert (protocol.epochs, protocol.nominal_epochs, protocol.batch_size, protocol.max_lr) == (30, 30, 128, 0.2)
        assert (protocol.weight_decay, protocol.augmentation, protocol.schedule) == (5e-4, "crop-4-flip", "linear")
        assert len(cell.seeds) == 3


def test_every_logged_network_that_the_authors_built_otherwise_is_trained_both_ways(settings):
    """Against our own count of parameters, for each network with a log on CIFAR."""
    studies = [name for name in read_studies("cifar") if name.startswith("rules")]
    plan = make_plan(replace(settings, scale="cifar", studies=tuple(studies)))
    both = {}
    for cell in plan.cells:
        if cell.study in studies:
            both.setdefault((cell.model.name, cell.dataset), set()).add(cell.model.rule)
    logged = {(row.model, row.dataset) for row in read_rows() if row.log_final and row.dataset.startswith("cifar")}
    differ = {
        (name, dataset)
        for name, dataset in logged
        if cost(name, "paper").parameters != cost(name, "authors").parameters
    }
    assert set(both) == differ
    assert all(rules == {"paper", "authors"} for rules in both.values())


def test_the_studies_at_the_papers_own_protocol(settings):
    """Graph seeds against train seeds on X-VGG16-2, four of whose runs are Table 4's; both rules where they differ."""
    studies = read_studies("cifar")
    plan = make_plan(replace(settings, scale="cifar", studies=tuple(studies), seeds={**settings.seeds, "table4": 10}))
    items = {name: set(runs) for name, runs in plan.runs_of_items(missing_ok=True).items()}
    assert {run.model.name for run in items["stability"]} == {"X-VGG16-2"}
    assert {(run.graph_seed, run.train_seed) for run in items["stability"]} == set(product(range(4), range(4)))
    assert len(items["stability"] & items["table4"]) == 4
    sizes = {run.model.name: set() for run in items["rules"]}
    for run in items["rules"]:
        sizes[run.model.name].add(sum(p.numel() for p in build_spec(run.model, 0).parameters()))
    assert all(len(found) == 2 for found in sizes.values()), "the rules build different networks"


STUDY = {
    "question": "?", "networks": ["X-VGG16-1"], "dataset": "cifar10", "protocol": "cifar-vgg",
    "factors": {"graph": ["random", "grouped"], "init": ["torch", "sparse-aware"]},
    "seeds": {"graph": 2, "train": 3}, "references": ["VGG16"], "scales": {"demo": None},
}  # fmt: skip


def planned(monkeypatch, tmp_path, **changes):
    """The cells of one study at scale demo."""
    path = write(tmp_path, {"mine": {**STUDY, **changes}})
    monkeypatch.setattr("experiments.plan.read_studies", lambda scale: read_studies(scale, path))
    monkeypatch.setattr(studies_module, "read_studies", lambda scale: read_studies(scale, path))
    return cells_of(make_plan(replace(ONE_SEED, studies=("mine",))), "mine")


def test_crossed_seeds_leave_out_graphs_that_no_seed_changes(monkeypatch, tmp_path):
    cells = planned(monkeypatch, tmp_path)
    seeds = {(cell.model.name, cell.model.graph, cell.model.init): cell.seeds for cell in cells}
    every = tuple((g, t) for g in range(2) for t in range(3))
    for init in ("torch", "sparse-aware"):
        assert seeds.pop(("X-VGG16-1", "random", init)) == every
        assert seeds.pop(("X-VGG16-1", "grouped", init)) == every[:3]
    assert seeds == {("VGG16", "random", "sparse-aware"): ((0, 0), (1, 1), (2, 2))}


def test_a_scale_may_change_anything(monkeypatch, tmp_path):
    changes = {
        "networks": ["X-VGG16-2"], "factors": {"graph": ["paley"]}, "seeds": {"paired": 1},
        "references": ["G-MobileNet-0.5-4"], "network": {"narrow": 16}, "protocol_changes": {"epochs": 2},
    }  # fmt: skip
    cells = planned(monkeypatch, tmp_path, scales={"demo": changes, "cifar": None})
    assert [(c.model.name, c.model.graph, c.model.narrow) for c in cells] == [
        ("X-VGG16-2", "paley", 16), ("G-MobileNet-0.5-4", "random", 16),
    ]  # fmt: skip
    assert {cell.protocol.epochs for cell in cells} == {2}
    assert {cell.model.drop_strides for cell in cells} == {2, 3}, "the scale's own changes stay"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"networks": ["X-VGG"]}, "nearest names are"),
        ({"networks": []}, "networks must be a list"),
        ({"networks": "X-VGG16-1"}, "networks must be a list"),
        ({"networks": ["X-VGG16-1", "X-VGG16-1"]}, "networks names something twice"),
        ({"networks": ["VGG16"]}, "VGG16 has no graph to vary: name it under references"),
        ({"references": ["Nothing"]}, "nearest names are"),
        ({"question": None, "netwroks": ["VGG16"]}, "Did you mean 'networks'"),
        ({"dataset": "svhn"}, "scale demo has no 'svhn'"),
        ({"protocol": "cifar"}, "unknown protocol 'cifar'"),
        ({"factors": {"grpah": ["random"]}}, "Did you mean 'graph'"),
        ({"factors": {"graph": ["randon"]}}, "Unknown graph 'randon'"),
        ({"factors": {"graph": "random"}}, "graph must be a list"),
        ({"factors": ["graph"]}, "factors must be"),
        ({"network": {"graph": "randon"}}, "Unknown graph 'randon'"),
        ({"network": {"name": "VGG16"}}, "unknown key 'name'"),
        ({"protocol_changes": {"epoch": 3}}, "Did you mean 'epochs'"),
        ({"protocol_changes": {"epochs": 0}}, "epochs must be a whole number >= 1"),
        ({"networks": [3]}, "wrong kind"),
        ({"protocol": ["a"]}, "wrong kind"),
        ({"network": {"graph": [1]}}, "wrong kind"),
        ({"protocol_changes": {"epochs": "two"}}, "epochs must be a whole number"),
        ({"factors": {"narrow": ["x"]}}, "narrow must be a whole number >= 1"),
        ({"network": {"drop_strides": -1}}, "drop_strides must be a whole number >= 0"),
        ({"seeds": 3}, "seeds must be"),
        ({"seeds": {"paired": 3, "graph": 2}}, "seeds must be"),
        ({"seeds": {"paired": 0}}, "whole number >= 1"),
        ({"seeds": {"graph": 2, "train": True}}, "whole number >= 1"),
        ({"figures": ["pie"]}, "unknown figure 'pie'"),
        ({"figures": ["connectivity"]}, "factor graph of at least 4 levels"),
        ({"figures": ["stability"], "seeds": {"paired": 4}}, "crossed"),
        ({"figures": ["stability"], "seeds": {"graph": 1, "train": 4}}, "at least 2 graph seeds"),
        ({"scales": {"dome": None}}, "Known are demo"),
        ({"scales": None}, "needs `scales:`"),
        ({"scales": {"demo": 5}}, "must be `key: value` lines"),
    ],
)
def test_mistakes_in_studies_are_one_sentence(monkeypatch, tmp_path, change, named):
    with pytest.raises(XNetsError, match=named) as error:
        planned(monkeypatch, tmp_path, **change)
    assert "\n" not in str(error.value)
    if "epochs" not in str(change):
        assert "studies.yaml: mine" in str(error.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "list of `name: study` lines"),
        ({"Table 4": STUDY}, "cannot be a study's name"),
        ({"table4": STUDY}, "cannot be a study's name"),
        ({"mine": None}, "needs `scales:`"),
        *(({"mine": {k: v for k, v in STUDY.items() if k != key}}, f"lacks `{key}:`")
          for key in ("question", "networks", "dataset", "protocol", "seeds")),
    ],
)  # fmt: skip
def test_files_that_are_no_studies(tmp_path, text, named):
    with pytest.raises(XNetsError, match=named) as error:
        read_studies("demo", write(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "named"),
    [(["conectivity"], "Did you mean 'connectivity'"), ("connectivity", "must be a list"), ([1], "must be a list")],
)
def test_params_name_studies_that_exist(repository, tmp_path, said, named):
    params = yaml.safe_load((repository / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "studies": said}))
    with pytest.raises(XNetsError, match=named):
        make_plan(read_settings(tmp_path / "params.yaml"))


def test_a_scale_with_nothing_to_do_says_what_it_has(settings):
    with pytest.raises(XNetsError, match=r"scale cifar-long has no table or figure.*groups-or-expanders"):
        make_plan(replace(settings, scale="cifar-long", studies=("stability",)))


def test_every_study_of_the_repository_can_be_planned(settings):
    declared = set(yaml.safe_load(STUDIES.read_text()))
    assert declared == set(settings.studies), "params.yaml has all of them on"
    for scale in read_scales():
        if names := read_studies(scale):
            plan = make_plan(replace(settings, scale=scale))
            assert set(names) == {cell.study for cell in plan.cells} - {""}
