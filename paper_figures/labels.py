"""Words beside points, each placed where it covers as little as possible."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

# Where a label may stand: (x, y) of its nearest edge from the point, in typographic points, the liked ones first.
_PLACES = [(x * far, y * far) for far in (5, 9, 14) for x, y in (
    (0, 1), (0, -1), (1, 0), (-1, 0), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)
)]  # fmt: skip
_FAR = 8  # a label farther away than this gets a thin line to its point
_LEADER = {"arrowstyle": "-", "lw": 0.4, "shrinkA": 0, "shrinkB": 2}


@dataclass(frozen=True)
class Label:
    """What to write beside the point (x, y), in data units."""

    x: float
    y: float
    text: str
    colour: str


def place_labels(axes: Axes, labels: list[Label], curves: Iterable[np.ndarray] = (), size: float = 6.5) -> None:
    """Write `labels` into `axes`, once its limits are final and its layout is settled.

    They avoid one another, the points, the borders and `curves`, arrays (points, 2) of the lines drawn, in data units.
    Greedy and without chance: the same labels always come out at the same places.
    """
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    pixels = axes.figure.dpi / 72  # of a typographic point
    points = axes.transData.transform([(label.x, label.y) for label in labels]) if labels else np.empty((0, 2))
    walked = [_walk(axes.transData.transform(curve), 3 * pixels) for curve in curves]
    obstacles = np.concatenate(walked or [points])
    boxes = [(x - 3 * pixels, y - 3 * pixels, x + 3 * pixels, y + 3 * pixels) for x, y in points]
    frame = axes.get_window_extent(renderer).extents
    for label, (x, y) in zip(labels, points, strict=True):
        text = axes.text(0, 0, label.text, fontsize=size, color=label.colour, zorder=6)
        text.set_in_layout(False)
        wide, high = text.get_window_extent(renderer).size
        text.remove()
        choices = [_box(x, y, dx * pixels, dy * pixels, wide, high) for dx, dy in _PLACES]
        costs = [_cost(box, boxes, obstacles, frame) + rank * 1e-3 for rank, box in enumerate(choices)]
        best = int(np.argmin(costs))
        boxes.append(choices[best])
        dx, dy = _PLACES[best]
        far = np.hypot(dx, dy) > _FAR
        written = axes.annotate(
            label.text, (label.x, label.y), (dx, dy), textcoords="offset points", fontsize=size, color=label.colour,
            ha=_side(dx, ("right", "center", "left")), va=_side(dy, ("top", "center", "bottom")), zorder=6,
            arrowprops=_LEADER | {"color": label.colour} if far else None,
        )  # fmt: skip
        written.set_in_layout(False)


def _side(offset: float, names: tuple[str, str, str]) -> str:
    return names[1 + int(np.sign(offset))]


def _box(x: float, y: float, dx: float, dy: float, wide: float, high: float) -> tuple[float, float, float, float]:
    left = x + dx - wide * (1 - np.sign(dx)) / 2
    low = y + dy - high * (1 - np.sign(dy)) / 2
    return left, low, left + wide, low + high


def _cost(box: tuple, boxes: list[tuple], obstacles: np.ndarray, frame: np.ndarray) -> float:
    """What a label here would cover: other labels and points count most, then borders, then lines."""
    left, low, right, high = box
    x0, y0, x1, y1 = np.transpose(boxes)
    wide, tall = np.minimum(right, x1) - np.maximum(left, x0), np.minimum(high, y1) - np.maximum(low, y0)
    area = float((wide.clip(0) * tall.clip(0)).sum())
    outside = max(0, frame[0] - left) + max(0, right - frame[2]) + max(0, frame[1] - low) + max(0, high - frame[3])
    x, y = obstacles.T
    crossed = ((x > left) & (x < right) & (y > low) & (y < high)).sum()
    return 10 * area + 100 * float(outside) + 20 * float(crossed)


def _walk(corners: np.ndarray, step: float) -> np.ndarray:
    """Points along a line through `corners`, at most `step` apart."""
    parts = [corners[:1]]
    for start, end in pairwise(corners):
        count = max(1, int(np.ceil(np.hypot(*(end - start)) / step)))
        parts.append(start + (end - start) * np.arange(1, count + 1)[:, None] / count)
    return np.concatenate(parts)
