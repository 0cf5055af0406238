"""The paper's names of networks, taken apart. Needs no torch: plans and tables read names too."""

import difflib
import re
from dataclasses import dataclass

from xnets.errors import XNetsError

RULES = ("paper", "authors")

_WIDE = [(40, 100, (4, 8, 16)), (40, 200, (4, 10, 20, 30, 50, 80)), (58, 60, (2, 4, 8, 16)), (70, 60, (2, 4, 8, 16))]
_NARROW = [(40, 24), (40, 36), (40, 48), (40, 60), (100, 12), (100, 24)]

# Every network of Tables 1-5 and Figs. 3-6.
PAPER_MODELS: tuple[str, ...] = (
    "VGG16", "X-VGG16-1", "X-VGG16-2",
    *(f"DenseNet-BC-{d}-{k}" for d, k in _NARROW),
    *(f"X-DenseNet-BC-2-{d}-{k}" for d, k in _NARROW),
    *(name for d, k, cs in _WIDE for name in (f"DenseNet-BC-{d}-{k}", *(f"X-DenseNet-BC-{c}-{d}-{k}" for c in cs))),
    *(name for d in (34, 50, 101) for name in (f"ResNet-{d}", f"X-ResNet-2-{d}")),
    *(name for d in (121, 169, 201, 161) for name in (f"DenseNet-BC-{d}", f"X-DenseNet-BC-2-{d}")),
    "MobileNet-0.5", *(f"{kind}-MobileNet-0.5-{g}" for g in (2, 4, 8, 16) for kind in ("X", "G")),
    "AlexNet", "X-AlexNet-1", "X-AlexNet-2",
)  # fmt: skip

_N = "[1-9][0-9]{0,4}"  # one spelling for each network, so no leading zeros: a name is part of a run's fingerprint
_PATTERNS = {
    "vgg": r"VGG16|(?P<kind>X)-VGG16-(?P<variant>[12])",
    "densenet": rf"(?:(?P<kind>X)-)?DenseNet-BC-(?(kind)(?P<compression>{_N})-)(?P<depth>{_N})(?:-(?P<growth>{_N}))?",
    "resnet": rf"(?:(?P<kind>X)-)?ResNet-(?(kind)(?P<compression>{_N})-)(?P<depth>18|34|50|101|152)",
    "mobilenet": rf"(?:(?P<kind>[XG])-)?MobileNet-0\.5(?(kind)-(?P<compression>{_N}))",
    "alexnet": r"AlexNet|(?P<kind>X)-AlexNet-(?P<variant>[12])",
}
_IMAGENET_DENSENETS = (121, 169, 201, 161)


@dataclass(frozen=True)
class ModelName:
    """A name, e.g. X-DenseNet-BC-2-40-24, and its parts; parts that a family lacks are None."""

    text: str
    family: str
    kind: str = ""  # "" dense, "X" expander, "G" grouped
    compression: int | None = None  # C, or g for groups
    depth: int | None = None
    growth: int | None = None
    variant: str | None = None  # "1" or "2" for X-VGG16 and X-AlexNet

    @property
    def image_size(self) -> int:
        """Side of the images the network was made for, in pixels: 32 (CIFAR) or 224 (ImageNet)."""
        return 32 if self.family == "vgg" or self.growth is not None else 224

    @property
    def num_classes(self) -> int:
        """Classes of the data set it is usually trained on: 10 (CIFAR-10) or 1000 (ImageNet)."""
        return 10 if self.image_size == 32 else 1000

    @property
    def dense_twin(self) -> str:
        """The name of the dense network it compresses."""
        if self.family == "densenet":
            return f"DenseNet-BC-{self.depth}" + (f"-{self.growth}" if self.growth else "")
        base = {"vgg": "VGG16", "resnet": f"ResNet-{self.depth}", "mobilenet": "MobileNet-0.5", "alexnet": "AlexNet"}
        return base[self.family]


def parse_name(text: str) -> ModelName:
    """Take a network's name apart. Raises XNetsError with the nearest names if there is no such network."""
    for family, pattern in _PATTERNS.items():
        match = re.fullmatch(pattern, text)
        if match:
            parts = match.groupdict()
            numbers = {key: int(parts[key]) for key in ("compression", "depth", "growth") if parts.get(key)}
            name = ModelName(text, family, parts["kind"] or "", variant=parts.get("variant"), **numbers)
            if _exists(name):
                return name
    near = difflib.get_close_matches(text, PAPER_MODELS, n=3, cutoff=0.3) or ["X-ResNet-2-50", "X-DenseNet-BC-2-40-24"]
    raise XNetsError(f"There is no network called {text!r}; the nearest names are {', '.join(near)}.")


def checked_rule(rule: str) -> str:
    """Return `rule` if it is one of RULES; raise XNetsError otherwise."""
    if rule not in RULES:
        raise XNetsError(f"Unknown rule {rule!r}; there are {', '.join(RULES)}.")
    return rule


def _exists(name: ModelName) -> bool:
    if name.family != "densenet":
        return True
    if name.growth is None:
        return name.depth in _IMAGENET_DENSENETS
    return name.depth >= 10 and (name.depth - 4) % 6 == 0
