"""Names of networks, read and written; what cannot be built is said."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.xnets.networks import full, hashes, weighted
from xnets.errors import XNetsError
from xnets.models import PAPER_MODELS, ModelSpec, build, build_spec, parse_name


def written(parsed) -> str:
    """The name from its parts."""
    family = {"densenet": "DenseNet-BC", "resnet": "ResNet", "vgg": "VGG16", "alexnet": "AlexNet"}
    parts = [parsed.kind, family.get(parsed.family, "MobileNet-0.5"), parsed.compression, parsed.depth, parsed.growth]
    return "-".join(str(part) for part in (*parts, parsed.variant) if part)


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_names_are_read_and_written(name):
    parsed = parse_name(name)
    assert written(parsed) == parsed.text == name
    cifar = re.fullmatch(r"(X-DenseNet-BC-\d+|DenseNet-BC)-\d+-\d+|(X-)?VGG16(-\d)?", name)
    assert (parsed.image_size, parsed.num_classes) == ((32, 10) if cifar else (224, 1000))
    twin = parse_name(parsed.dense_twin)
    assert (twin.kind, twin.compression, twin.variant) == ("", None, None)
    assert (twin.family, twin.depth, twin.growth) == (parsed.family, parsed.depth, parsed.growth)
    assert twin.dense_twin == twin.text
    assert twin.text in PAPER_MODELS
    assert weighted(full(name))[-1].weight.shape[0] == parsed.num_classes


NUMBERS = st.lists(st.sampled_from(["0", "02", "2", "24", "34", "40", "50", "121", "²"]), max_size=3)
FAMILIES = st.sampled_from(["ResNet", "DenseNet-BC", "MobileNet-0.5", "VGG16", "AlexNet"])


@given(st.sampled_from([[], ["X"], ["G"]]), FAMILIES, NUMBERS)
def test_a_network_has_one_spelling_or_none(kind, family, numbers):
    text = "-".join([*kind, family, *numbers])
    try:
        parsed = parse_name(text)
    except XNetsError:
        return
    assert written(parsed) == text


@given(st.text(max_size=30).filter(lambda text: text not in PAPER_MODELS))
def test_other_text_is_no_name(text):
    with pytest.raises(XNetsError, match="the nearest names are"):
        parse_name(text)


MISSPELT = {
    "x-resnet-2-50": "X-ResNet-2-50", "resnet50": "ResNet-50", "X-Resnet-2-34": "X-ResNet-2-34", "VGG-16": "VGG16",
    "alexnet": "AlexNet", "X-MobileNet-0.5_4": "X-MobileNet-0.5-4", "densenet121": "DenseNet-BC-121",
    "X-DenseNet-BC-40-24-2": "X-DenseNet-BC-2-40-24", "X-VGG16-3": "X-VGG16-2", "X-ResNet-50": "X-ResNet-2-50",
    "X-ResNet-0-50": "X-ResNet-2-50", "X-ResNet-02-50": "X-ResNet-2-50", "X-ResNet-2-50\n": "X-ResNet-2-50",
    "DenseNet-BC-41-24": "DenseNet-BC-40-24", "DenseNet-BC-4-12": "DenseNet-BC-40-24", 
    "DenseNet-BC-40-0": "DenseNet-BC-40-60",
    "DenseNet-BC-43-24": "DenseNet-BC-40-24", "DenseNet-BC-122": "DenseNet-BC-121",
    "X-ResNet-２-50": "X-ResNet-2-50", "": "X-ResNet-2-50",
    "G-ResNet-2-50": "X-ResNet-2-50",
}  # fmt: skip


@pytest.mark.parametrize("text", MISSPELT)
def test_unknown_names_suggest_the_nearest(text):
    with pytest.raises(XNetsError) as caught:
        build(text)
    assert MISSPELT[text] in re.split(", | are ", str(caught.value).rstrip("."))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rule": "head"}, "Unknown rule 'head'; there are paper, authors"),
        ({"graph": "expander"}, "Unknown graph 'expander'; there are random"),
        ({"graph": "expander", "device": "meta"}, "Unknown graph 'expander'"),
        ({"name": "ResNet-34", "graph": "expander"}, "Unknown graph 'expander'"),
        ({"init": "he"}, "Unknown initialisation 'he'; there are torch"),
        ({"name": "ResNet-34", "init": "he", "device": "meta"}, "Unknown initialisation 'he'"),
        ({"name": "X-MobileNet-0.5-64"}, "compression 64 does not fit a layer with fan-in 32"),
        ({"name": "X-DenseNet-BC-49-40-24", "device": "meta"}, "compression 49 does not fit a layer with fan-in 48"),
        ({"name": "G-MobileNet-0.5-3"}, "3 groups do not divide a layer of 32 inputs and 64 outputs"),
        ({"name": "G-MobileNet-0.5-64"}, "64 groups do not divide"),
        ({"name": "X-VGG16-1", "rule": "authors"}, "use rule='paper', or X-VGG16-2"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"num_classes": -1}, "num_classes must be at least 1, not -1"),
        ({"narrow": 0}, "narrow must be >= 1"),
        ({"drop_strides": -1}, "drop_strides >= 0"),
        ({"name": "ResNet-34", "narrow": 65}, "A layer of 64 channels cannot be narrowed 65 times"),
        ({"name": "DenseNet-BC-40-24", "narrow": 100}, "cannot be narrowed 100 times"),
        ({"name": "X-VGG16-2", "narrow": 17}, "cannot be narrowed 17 times"),
        ({"graph_seed": -1}, "must be a whole number >= 0, not -1"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_said(arguments, words):
    with pytest.raises(XNetsError, match=re.escape(words)):
        build(**{"name": "X-MobileNet-0.5-4"} | arguments)


def test_a_spec_says_what_its_defaults_are():
    assert ModelSpec("X-MobileNet-0.5-4", rule="authors").graph == "random-by-input"
    assert ModelSpec("X-ResNet-2-50", rule="authors").graph == "random"
    assert ModelSpec("X-MobileNet-0.5-4", rule="authors", graph="random").graph == "random"
    assert ModelSpec("VGG16") == ModelSpec("VGG16", 10, "paper", "random", "sparse-aware", 1, 0)
    spec = ModelSpec("X-DenseNet-BC-2-40-24", num_classes=100, narrow=8)
    assert hashes(build_spec(spec, 3)) == hashes(build("X-DenseNet-BC-2-40-24", 100, graph_seed=3, narrow=8))


def test_names_are_read_without_torch():
    code = """if True:
        import sys
        import xnets, xnets.models, xnets.models.names
        spec = xnets.models.ModelSpec("X-ResNet-2-50")
        assert spec.parsed.dense_twin in xnets.models.PAPER_MODELS
        print(sorted({"torch", "numpy", "torchvision"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
