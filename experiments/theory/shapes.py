"""The layer shapes (n_in, n_out, D) that the paper's X-Nets use, at full size."""

from dataclasses import dataclass

from xnets.layers import ExpanderLayer
from xnets.models import PAPER_MODELS, build, parse_name


@dataclass(frozen=True, order=True)
class Shape:
    """A shape of expander layers, with the families of networks that use it and how many layers they have of it."""

    n_in: int
    n_out: int
    degree: int
    families: str = ""
    layers: int = 0


def paper_shapes() -> list[Shape]:
    """Every distinct shape, those with the fewest entries first."""
    layers: dict[tuple[int, int, int], int] = {}
    families: dict[tuple[int, int, int], dict[str, None]] = {}
    for name in PAPER_MODELS:
        parsed = parse_name(name)
        if parsed.kind != "X":
            continue
        for layer in build(name, device="meta").modules():
            if isinstance(layer, ExpanderLayer):
                key = layer.n_in, layer.n_out, layer.degree
                layers[key] = layers.get(key, 0) + 1
                families.setdefault(key, {})[parsed.family] = None
    shapes = [Shape(*key, " ".join(families[key]), count) for key, count in layers.items()]
    return sorted(shapes, key=lambda shape: (shape.n_in * shape.n_out, shape))
