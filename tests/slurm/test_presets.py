"""Cluster presets: every mistake is a sentence, all of them at once, and generic.yaml documents every key."""

from dataclasses import fields

import pytest
import yaml

from slurm.preset import CLUSTERS, Preset, Shape, read_preset
from xnets.errors import XNetsError


@pytest.fixture
def refusal(tmp_path):
    """What is said of a preset with this content; fails if it is taken."""

    def read(content, threads=1):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        with pytest.raises(XNetsError) as caught:
            read_preset(str(path), threads)
        return str(caught.value)

    return read


@pytest.mark.parametrize("name", [path.stem for path in CLUSTERS.glob("*.yaml")])
def test_shipped_presets_are_valid(name):
    assert read_preset(name).name == name


def test_generic_shows_every_key_with_its_default():
    assert {path.stem for path in CLUSTERS.glob("*.yaml")} >= {"generic", "local"}
    said = yaml.safe_load((CLUSTERS / "generic.yaml").read_text())
    assert set(said) == {f.name for f in fields(Preset)} - {"name"}
    assert read_preset("generic") == Preset("generic")


def test_a_file_of_ones_own(tmp_path, monkeypatch):
    path = tmp_path / "my.cluster.yaml"
    path.write_text(
        "gpus: 2\nmemory_gb: null\nsetup: [module load cuda]\nminutes_per_job: 0\nscratch: $TMPDIR/x\n"
        "distributed: {imagenet: {nodes: 2, tasks: 4}, cifar10: {tasks: 2}}\nsbatch: {exclude: node7}\n"
    )
    preset = read_preset(str(path))
    assert (preset.gpus, preset.memory_gb, preset.setup) == (2, None, ("module load cuda",))
    assert preset.shape("imagenet") == Shape(2, 4)
    assert preset.shape("cifar10") == Shape(1, 2)
    assert preset.shape("imagenet").processes == 8
    assert preset.shape("digits") == Shape()
    assert preset.sbatch == {"exclude": "node7"}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_preset("~/my.cluster.yaml") == preset
    path.write_text("setup: null\nsbatch: null\ndistributed: null\n")
    assert read_preset(str(path)) == Preset("my.cluster")


@pytest.mark.parametrize("name", ["generik", "no/where.yaml", "", "/", "~nobody-of-this-name/x.yaml"])
def test_an_unknown_cluster_is_told_with_the_known_ones(name):
    with pytest.raises(XNetsError, match=r"There is no cluster .* generic, local or the path of a \.yaml file"):
        read_preset(name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("gpus: [1\ncpus: 2\n", "is not valid YAML at line 2"),
        ("gpus: \x00", "is not valid YAML"),
        ("", "must be `key: value` lines"),
        ("# nothing\n", "must be `key: value` lines"),
        ("- gpus\n", "must be `key: value` lines"),
    ],
)
def test_a_broken_file(refusal, content, sentence):
    assert sentence in refusal(content)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(XNetsError, match="not a text file"):
        read_preset(str(tmp_path / "x.yaml"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"partitoin": "a"}, "unknown key 'partitoin'. Did you mean 'partition'?"),
        ({"nodelist": "n1"}, "unknown key 'nodelist'. What sbatch alone knows goes under `sbatch:`."),
        ({"name": "x"}, "unknown key 'name'."),
        ({1: 2}, "unknown key 1."),
        ({"partition": 5}, "partition must be a text or null, not 5."),
        ({"account": " "}, "account must be a text or null, not ' '."),
        ({"python": ["a"]}, "python must be a text or null, not ['a']."),
        ({"scratch": ""}, "scratch must be a text or null, not ''."),
        ({"gpus": True}, "gpus must be a whole number >= 0, not True."),
        ({"gpus": -1}, "gpus must be a whole number >= 0, not -1."),
        ({"cpus": 0}, "cpus must be a whole number >= 1, not 0."),
        ({"cpus": 1.5}, "cpus must be a whole number >= 1, not 1.5."),
        ({"cpus": None}, "cpus must be a whole number >= 1, not None."),
        ({"time_minutes": "4:00:00"}, "time_minutes must be a whole number >= 2, not '4:00:00'."),
        ({"signal_seconds": 9}, "signal_seconds must be a whole number >= 10, not 9."),
        ({"at_most": 0}, "at_most must be a whole number >= 1, not 0."),
        ({"runs_at_once": False}, "runs_at_once must be a whole number >= 1, not False."),
        ({"memory_gb": "16G"}, "memory_gb must be a number > 0, not '16G'."),
        ({"memory_gb": 0}, "memory_gb must be a number > 0, not 0."),
        ({"memory_gb": True}, "memory_gb must be a number > 0, not True."),
        ({"memory_gb": float("inf")}, "memory_gb must be a number > 0, not inf."),
        ({"poll_seconds": float("nan")}, "poll_seconds must be a number > 0, not nan."),
        ({"poll_seconds": None}, "poll_seconds must be a number > 0, not None."),
        ({"minutes_per_job": -1}, "minutes_per_job must be a number >= 0, not -1."),
        ({"minutes_per_job": float("nan")}, "minutes_per_job must be a number >= 0, not nan."),
        ({"setup": "module load cuda"}, "setup must be a list of shell lines, not 'module load cuda'."),
        ({"setup": [{"export A": 1}]}, "put quotes around lines with a colon."),
        ({"sbatch": "--exclude=n1"}, "sbatch must be a list of `option: value` lines"),
        ({"sbatch": {"job_name": "x"}}, "sbatch: job_name is set by the sweep itself: leave it out."),
        ({"sbatch": {"requeue": False}}, "sbatch: requeue is set by the sweep itself"),
        ({"sbatch": {"open-mode": "truncate"}}, "sbatch: open-mode is set by the sweep itself"),
        ({"sbatch": {"ntasks_per_node": 2}}, "sbatch: ntasks_per_node is set by the sweep itself"),
        ({"distributed": ["imagenet"]}, "distributed must be `data set: {nodes: 1, tasks: 4}` lines"),
        ({"distributed": {"imagenet": 4}}, "distributed: imagenet must be {nodes: N, tasks: N}"),
        ({"distributed": {"imagenet": {"gpus": 4}}}, "distributed: imagenet must be {nodes: N, tasks: N}"),
        ({"distributed": {"imagenet": {"tasks": True}}}, "distributed: imagenet must be {nodes: N, tasks: N}"),
        ({"distributed": {"imagenet": {"nodes": 0}}}, "distributed: imagenet must be {nodes: N, tasks: N}"),
        ({"gres": "gpu:2", "gpus": 2}, "gres and gpus both ask for GPUs: leave one of them out."),
        ({"time_minutes": 2, "signal_seconds": 61, "minutes_per_job": 0}, "leaves no minute to train"),
        ({"minutes_per_job": 241}, "minutes_per_job 241 is more than time_minutes 240"),
        ({"runs_at_once": 9}, "runs_at_once 9 of 1 thread each need as many cpus, not 8"),
        ({"scratch": "tmp/x"}, "scratch must be an absolute folder on the nodes"),
        ({"scratch": "tmp/$USER"}, "scratch must be an absolute folder on the nodes"),
    ],
)
def test_a_mistake_is_one_sentence(refusal, content, sentence):
    said = refusal(content)
    assert sentence in said
    assert said.count("\n") == 1, "one heading, one mistake"


def test_threads_count_for_cpus(refusal, tmp_path):
    assert "of 3 threads each" in refusal({"runs_at_once": 3}, threads=3)
    assert read_preset(str(tmp_path / "mine.yaml"), threads=2).runs_at_once == 3


@pytest.mark.parametrize(
    "content",
    [
        {"gres": "gpu:a100:2"},
        {"time_minutes": 2, "signal_seconds": 60, "minutes_per_job": 2},
        {"minutes_per_job": 240},
        {"runs_at_once": 8},
        {"scratch": "/scratch"},
        {"scratch": "~/scratch"},
    ],
)
def test_what_is_just_right(tmp_path, content):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    preset = read_preset(str(tmp_path / "mine.yaml"))
    assert {key: getattr(preset, key) for key in content} == content


def test_all_mistakes_are_told_at_once(refusal):
    said = refusal({"gpu": 1, "cpus": "many", "setup": "x", "sbatch": {"array": "0-3"}, "distributed": 3})
    heading, *sentences = said.splitlines()
    assert heading.endswith("mine.yaml has mistakes:")
    assert [sentence.split()[0] for sentence in sentences] == ["unknown", "cpus", "setup", "sbatch:", "distributed"]
