"""Does a larger distance go with more robustness when one setting alone changes?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from landscape.statistics.granulated import Granulated, granulate
from landscape.study.columns import Rows, numbers
from landscape.study.selection import setting_text

if TYPE_CHECKING:
    from landscape.study.associations import Columns, CorrelateConfig

# Settings that are compared one at a time. A method and its arguments are one setting.
AXES = {
    "learning_rate": ("learning_rate",),
    "batch_size": ("batch_size",),
    "optimizer": ("optimizer",),
    "method": ("method", "method_args"),
}
FIXED = ("model", "model_args", "other_settings")


def over_settings(rows: Rows, columns: Columns, config: CorrelateConfig) -> tuple[Granulated, ...]:
    """Granulated τ and sign errors of d_θ with median d_X and with each reading of robustness over ``AXES``."""
    axes = {
        axis: [tuple(setting_text(row, name) for name in names) for row in rows] for axis, names in AXES.items()
    }
    fixed = [tuple(setting_text(row, name) for name in FIXED) for row in rows]
    x = numbers(rows, columns.d_theta)
    found = (
        granulate(
            x,
            numbers(rows, y),
            axes,
            fixed,
            bootstrap=config.bootstrap,
            seed=config.seed,
            names=(columns.d_theta, y),
        )
        for y in (columns.d_x, *columns.robustness.values())
    )
    return tuple(found)


def _settings(rows: Rows, names: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(setting_text(row, name) for name in names) for row in rows]
