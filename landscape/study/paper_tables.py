"""The paper's Tables 1 and 2 and its Figure 3 over trained runs: means over seeds at each run's best epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from landscape.errors import ConfigurationError
from landscape.snapshots import BestRule
from landscape.snapshots.select import ACCURACY, best_of
from landscape.study.paper import READINGS, TABLES, Best, LayerWidths, Statistic, Table, TableCell, WidthPoint
from landscape.study.paper_runs import TrainedRun

_HIDDEN = "hidden"


def best_of_run(run: TrainedRun, rule: BestRule) -> Best | None:
    """The run at its best epoch; None if it never ended one."""
    epochs = best_of(run.metrics, rule) if run.metrics else []
    if not epochs:
        return None
    place = int(np.flatnonzero(run.metrics["epoch"] == epochs[0])[-1])
    return Best(epochs[0], float(run.metrics[ACCURACY][place]), float(run.metrics[rule.robustness][place]))


def table_of(runs: Sequence[TrainedRun], optimizer: str, rule: BestRule) -> Table | None:
    """The table of an optimizer, over runs of one protocol; None if there is no run."""
    cells: dict[tuple[int, float], list[TrainedRun]] = {}
    for run in runs:
        if run.optimizer == optimizer:
            cells.setdefault((run.batch_size, run.learning_rate), []).append(run)
    filled = tuple(_cell(*key, cells[key], rule) for key in sorted(cells))
    return Table(TABLES[optimizer], optimizer, rule.reading, rule.tolerance, filled) if filled else None


def _cell(batch_size: int, learning_rate: float, runs: Sequence[TrainedRun], rule: BestRule) -> TableCell:
    _check_seeds(runs)
    found = [best_of_run(run, rule) for run in runs]
    best = [b for b in found if b is not None]
    return TableCell(
        batch_size,
        learning_rate,
        num_runs=len(runs),
        num_diverged=sum(run.outcome == "diverged" for run in runs),
        num_unmeasured=len(found) - len(best),
        epoch=_statistic(b.epoch for b in best),
        acc=_statistic(b.accuracy for b in best),
        adv_acc=_statistic(b.robust for b in best),
    )


def _check_seeds(runs: Sequence[TrainedRun]) -> None:
    """Refuse a run that counts twice, such as a copy of a folder."""
    seed, count = Counter(run.seed for run in runs).most_common(1)[0]
    if count > 1:
        paths = ", ".join(run.path for run in runs if run.seed == seed)
        raise ConfigurationError(f"{paths} are the same run, which would count {count} times; leave one in.")


def _statistic(values: Iterable[float]) -> Statistic:
    numbers = list(values)
    mean = float(np.mean(numbers)) if numbers else math.nan
    return Statistic(mean, float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan)


def layer_widths(runs: Sequence[TrainedRun], tolerance: float) -> LayerWidths | None:
    """Runs that differ in nothing but the seed and the width of the first dense layer.

    Of several such families it is the one with most widths; None where none has two.
    """
    families: dict[str, list[TrainedRun]] = {}
    for run in runs:
        if type(run.arguments.get(_HIDDEN)) is int and run.outcome:
            cell = f"{run.optimizer} {run.learning_rate} {run.batch_size} "
            families.setdefault(cell + run.protocol(without=[_HIDDEN]), []).append(run)
    family = max(families.values(), key=lambda some: (len(_by_width(some)), len(some)), default=[])
    by_width = _by_width(family)
    if len(by_width) < 2:
        return None
    points = tuple(_point(hidden, by_width[hidden], tolerance) for hidden in sorted(by_width))
    return LayerWidths(family[0].subject, int(family[0].settings["epochs"]), points)


def _by_width(runs: Sequence[TrainedRun]) -> dict[int, list[TrainedRun]]:
    """Runs that ended an epoch, by the width of their first dense layer and in order of seed."""
    by_width: dict[int, list[TrainedRun]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        if run.metrics:
            by_width.setdefault(int(run.arguments[_HIDDEN]), []).append(run)
    return by_width


def _point(hidden: int, runs: Sequence[TrainedRun], tolerance: float) -> WidthPoint:
    rules = {reading: BestRule(reading, tolerance) for reading in READINGS}
    best = {name: [best_of_run(run, rule) for run in runs] for name, rule in rules.items()}
    return WidthPoint(hidden, {name: tuple(b for b in some if b) for name, some in best.items()})
