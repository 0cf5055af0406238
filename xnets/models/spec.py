"""A network to be built, as data: what of it changes a result. Needs no torch."""

from dataclasses import dataclass

from xnets.errors import XNetsError
from xnets.models.names import ModelName, checked_rule, parse_name


@dataclass(frozen=True)
class ModelSpec:
    """A network but for its seeds; see xnets.models.build for the arguments."""

    name: str
    num_classes: int | None = None
    rule: str = "paper"
    graph: str | None = None
    init: str | None = None
    narrow: int = 1
    drop_strides: int = 0

    def __post_init__(self) -> None:
        parsed = parse_name(self.name)
        checked_rule(self.rule)
        if self.rule == "authors" and parsed.family == "vgg" and parsed.variant == "1":
            raise XNetsError("The authors released no configuration of X-VGG16-1: use rule='paper', or X-VGG16-2.")
        if self.num_classes is None:
            object.__setattr__(self, "num_classes", parsed.num_classes)
        if self.graph is None:
            by_input = self.rule == "authors" and parsed.family == "mobilenet"  # ExpanderConv2dReverse
            object.__setattr__(self, "graph", "random-by-input" if by_input else "random")
        if self.init is None:  # VGG's own He rule at the true fan; all others as nn.Conv2d
            object.__setattr__(self, "init", "sparse-aware" if parsed.family == "vgg" else "torch")
        if self.num_classes < 1:
            raise XNetsError(f"num_classes must be at least 1, not {self.num_classes}.")

    @property
    def parsed(self) -> ModelName:
        """The name's parts."""
        return parse_name(self.name)
