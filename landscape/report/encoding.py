"""How a run's settings are shown in the report's plots: shape, colour and size, and a hole."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

from matplotlib import colormaps
from matplotlib.colors import to_hex

from landscape.report.style import COLOUR_MAP
from landscape.study.columns import Rows, distinct, numbers

# Radii in units of the plot, smallest and largest learning rate, for up to so many points in a panel.
_RADII = ((150, 3.4, 5.4), (1000, 2.4, 3.8), (4000, 1.7, 2.6), (math.inf, 1.2, 1.8))
_STEPS = 100  # more than an eye can tell, and few enough for marks to be grouped
IN_LEGEND = _RADII[0][1:]
UNKNOWN_COLOUR = "#999999"


def _regular(corners: int, turn: float, inner: float = 1.0) -> list[tuple[float, float]]:
    """Corners of a regular polygon, or of a star whose inner ones lie at ``inner``."""
    angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
    radii = [inner if i % 2 else 1.0 for i in range(corners)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def _cross(arm: float, turn: float) -> list[tuple[float, float]]:
    corners = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    corners += [(-x, -y) for x, y in corners]
    sin, cos = math.sin(turn), math.cos(turn)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in corners]


_POLYGONS = (
    _regular(4, math.pi / 4),
    _regular(3, 0.0),
    _regular(4, 0.0),
    _regular(3, math.pi),
    _cross(0.34, 0.0),
    _cross(0.34, math.pi / 4),
    _regular(10, 0.0, 0.45),
    _regular(3, -math.pi / 2),
    _regular(3, math.pi / 2),
)
NUM_SHAPES = 1 + len(_POLYGONS)


@dataclass(frozen=True)
class Encoding:
    """Batch sizes in the order of their shapes, and learning rates from the smallest to the largest."""

    batch_sizes: tuple[float, ...]
    learning_rates: tuple[float, ...]
    radii: tuple[float, float]

    def shape(self, batch_size: float, radius: float) -> str:
        """Path of a mark from its centre; a small ring for a run without a batch size."""
        if batch_size not in self.batch_sizes:
            return disc(0.6 * radius)
        number = self.batch_sizes.index(batch_size) % NUM_SHAPES
        return _polygon(number - 1, radius) if number else disc(radius)

    def colour(self, learning_rate: float) -> str:
        """Viridis on a logarithmic scale, dark for small learning rates; grey where there is none."""
        place = self.place(learning_rate)
        return UNKNOWN_COLOUR if math.isnan(place) else _colour_at(place)

    @property
    def edge(self) -> float:
        """Width of the outline of a mark."""
        return 0.2 * self.radii[0]

    def radius(self, learning_rate: float, radii: tuple[float, float] | None = None) -> float:
        """Radius of a mark: it grows with the learning rate, so that colour is not needed to tell it."""
        place = self.place(learning_rate)
        small, large = radii or self.radii
        return small if math.isnan(place) else small + place * (large - small)

    def place(self, learning_rate: float) -> float:
        """Where a learning rate lies between the smallest, 0, and the largest, 1, in steps; NaN for none."""
        if not (learning_rate > 0 and self.learning_rates):
            return math.nan
        low, high = self.learning_rates[0], self.learning_rates[-1]
        if high == low:
            return 0.5
        return round(_STEPS * math.log(learning_rate / low) / math.log(high / low)) / _STEPS


def encoding_of(rows: Rows, num_points: int) -> Encoding:
    """The encoding of all rows; ``num_points`` is that of the fullest panel, and makes marks small."""
    radii = next((small, large) for most, small, large in _RADII if num_points <= most)
    rates = tuple(rate for rate in distinct(numbers(rows, "learning_rate")) if rate > 0)
    return Encoding(tuple(distinct(numbers(rows, "batch_size"))), rates, radii)


# Of thousands of marks few differ, and a colour map is copied whenever it is looked up.
@cache
def _colour_at(place: float) -> str:
    return str(to_hex(colormaps[COLOUR_MAP](place)))


def hole(radius: float) -> str:
    """Path of what is cut out of a mark of a run that a method trained."""
    return disc(0.45 * radius)


def short(value: float) -> str:
    """A coordinate with one decimal, or none."""
    return f"{value:.1f}".removesuffix(".0").replace("-0.", "-.").removeprefix("0") or "0"


def disc(radius: float) -> str:
    """Path of a disc from its centre."""
    r, d = short(radius), short(2 * round(radius, 1))  # else two halves are none of a circle
    return f"m-{r} 0a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0-{d} 0z"


@cache
def _polygon(number: int, radius: float) -> str:
    """A polygon with about the area of the circle."""
    corners = _POLYGONS[number]
    pairs = zip(corners, corners[1:] + corners[:1], strict=True)
    area = abs(sum(x * v - u * y for (x, y), (u, v) in pairs)) / 2
    # A full equalisation would make thin marks large.
    scale = radius * min(math.sqrt(math.pi / area), 1.5)
    points = [(x * scale, y * scale) for x, y in corners]
    steps = [(x - a, y - b) for (a, b), (x, y) in itertools.pairwise(points)]
    return f"m{_pair(points[0])}l" + " ".join(map(_pair, steps)) + "z"


def _pair(point: tuple[float, float]) -> str:
    return f"{short(point[0])} {short(point[1])}"
