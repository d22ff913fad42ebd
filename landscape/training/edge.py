"""The edge of convergence: the largest learning rate at which short runs still converge (the paper's §4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from landscape.engine import Outcome
from landscape.errors import ConfigurationError, LandscapeError
from landscape.snapshots import open_run
from landscape.training.bracket import TOLERANCES, bracket_of, is_monotone, next_rates
from landscape.training.config import TrainingConfig
from landscape.training.grid import run_name
from landscape.training.loop import make_bench
from landscape.training.sweep import Cell, CellResult, cells_of

# Trains runs that a search asks for; `landscape.training.sweep.sweep` with its executor is one.
Train = Callable[[Sequence[Cell]], Iterable[Outcome[Cell, CellResult]]]

# Where a search begins, by optimizer.
STARTS = {"sgd": 0.1, "adam": 0.001}
# Learning rates that a search may begin at: its ladder of powers of 2 stays within float32.
LARGEST_START = 1e9
# No pair within any epoch: of a run of the search only the ends of epochs are kept.
_ENDS_ONLY = 2**31 - 1

RULE = (
    "A run converges when it has not diverged and its training loss after the last epoch is at most half of "
    "ln K, the loss of guessing among K classes. A learning rate converges when more than half of its runs do."
)


@dataclass(frozen=True)
class EdgeSearch:
    """What is searched: ``config`` with its learning rate as the start; its seed and snapshots do not matter."""

    config: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=1))
    seeds: int = 5
    tolerance: float = 1.25  # ratio of the bracket at which the search ends

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", replace(self.config, seed=0, snapshot_every=_ENDS_ONLY))
        if not isinstance(self.seeds, int) or isinstance(self.seeds, bool) or self.seeds < 1:
            raise ConfigurationError(f"seeds = {self.seeds!r} cannot be; pass a whole number ≥ 1.")
        least, most = TOLERANCES
        if not least <= self.tolerance <= most:
            raise ConfigurationError(
                f"tolerance = {self.tolerance} cannot be; pass one from {least:g} to {most:g}."
            )
        if not 1 / LARGEST_START <= self.config.learning_rate <= LARGEST_START:
            raise ConfigurationError(
                f"a search cannot start at the learning rate {self.config.learning_rate}; pass one from "
                f"{1 / LARGEST_START:g} to {LARGEST_START:g}."
            )


@dataclass(frozen=True)
class Probe:
    """Runs of all seeds at one learning rate."""

    learning_rate: float
    losses: tuple[float, ...]  # training loss after the last epoch, by seed; NaN where the run diverged
    converged: int  # how many did

    @property
    def converges(self) -> bool:
        """Whether the learning rate counts as one that converges: the majority did."""
        return 2 * self.converged > len(self.losses)

    @property
    def median_loss(self) -> float:
        """Median of the losses, of two in the middle the larger; NaN counts as the largest."""
        return sorted(self.losses, key=lambda loss: (math.isnan(loss), loss))[len(self.losses) // 2]


@dataclass(frozen=True)
class Edge:
    """What a search found, with all that it tried, by learning rate."""

    search: EdgeSearch
    loss_limit: float  # the largest training loss at which a run has converged
    probes: tuple[Probe, ...]

    @property
    def converges(self) -> dict[float, bool]:
        """The verdict on each learning rate."""
        return {probe.learning_rate: probe.converges for probe in self.probes}

    @property
    def learning_rate(self) -> float | None:
        """The edge: the largest learning rate that converges; None if none does."""
        return bracket_of(self.converges)[0]

    @property
    def above(self) -> float | None:
        """The smallest learning rate tried above the edge, which does not converge; None if there is none."""
        return bracket_of(self.converges)[1]

    @property
    def bracketed(self) -> bool:
        """Whether the edge lies between a learning rate that converges and one that does not."""
        return self.above is not None

    @property
    def monotone(self) -> bool:
        """Whether no learning rate that fails lies between two that converge."""
        return is_monotone(self.converges)


@dataclass(frozen=True)
class Confirmation:
    """What seeds that a search did not see do at half of its edge and at twice the edge."""

    half: Probe
    twice: Probe

    @property
    def separates(self) -> bool:
        """Whether all converge at half of the edge, and none at twice the edge."""
        return self.half.converged == len(self.half.losses) and self.twice.converged == 0


def edge_name(config: TrainingConfig) -> str:
    """Name of the folder of a search: that of its runs without learning rate and seed, and their length."""
    name = run_name(replace(config, seed=0)).removesuffix("_seed0")
    return name.replace(f"_lr{config.learning_rate:.12g}", "", 1) + f"_epochs{config.epochs}"


def search_edge(search: EdgeSearch, folder: Path | str, train: Train) -> Edge:
    """Find the edge of convergence by short runs below ``folder``; those that are there are not trained again.

    A run converges when it has not diverged and L(θ) ≤ ½ ln K over all training data after the last epoch; a
    learning rate converges when more than half of the seeds do. Rates are chosen by `next_rates`.

    Raises:
        LandscapeError: If there is no such model or dataset, or a run cannot be trained.
    """
    edge = Edge(search, convergence_limit(search.config), ())
    while rates := next_rates(edge.converges, search.config.learning_rate, search.tolerance):
        probes = (*edge.probes, *_train_probes(edge, rates, range(search.seeds), folder, train))
        edge = replace(edge, probes=tuple(sorted(probes, key=lambda probe: probe.learning_rate)))
    return edge


def confirm_edge(edge: Edge, seeds: int, folder: Path | str, train: Train) -> Confirmation:
    """Train seeds that the search did not see, as long as its runs, on either side of the edge.

    Raises:
        ConfigurationError: If no edge was found, or the number of seeds is not positive.
        LandscapeError: If a run cannot be trained.
    """
    if edge.learning_rate is None or not edge.bracketed or seeds < 1:
        raise ConfigurationError(f"{seeds} seeds cannot confirm an edge at {edge.learning_rate}; find one first.")
    others = range(edge.search.seeds, edge.search.seeds + seeds)
    half, twice = _train_probes(edge, (edge.learning_rate / 2, 2 * edge.learning_rate), others, folder, train)
    return Confirmation(half, twice)


def convergence_limit(config: TrainingConfig) -> float:
    """½ ln K, for a dataset of K classes; LandscapeError if there is no such dataset or model."""
    return math.log(make_bench(config).data.num_classes) / 2


def judge(learning_rate: float, losses: Sequence[float], loss_limit: float) -> Probe:
    """The probe with these losses; one that is NaN is above every limit."""
    return Probe(learning_rate, tuple(losses), sum(loss <= loss_limit for loss in losses))


def _train_probes(
    edge: Edge, rates: Sequence[float], seeds: Sequence[int], folder: Path | str, train: Train
) -> list[Probe]:
    """Some seeds at some learning rates, trained at once."""
    configs = [replace(edge.search.config, learning_rate=rate, seed=seed) for rate in rates for seed in seeds]
    losses: dict[tuple[float, int], float] = {}
    for outcome in train(cells_of(configs, folder)):
        if outcome.result is None:
            raise _failure(outcome)
        losses[outcome.task.config.learning_rate, outcome.task.config.seed] = _final_loss(outcome.result)
    return [judge(rate, [losses[rate, seed] for seed in seeds], edge.loss_limit) for rate in rates]


def _final_loss(result: CellResult) -> float:
    if result.outcome == "diverged":  # perhaps before its first snapshot
        return math.nan
    return float(open_run(result.directory).metrics["train_loss"][-1])


def _failure(outcome: Outcome[Cell, CellResult]) -> LandscapeError:
    if isinstance(outcome.error, LandscapeError):
        return outcome.error
    return LandscapeError(
        f"the run {outcome.task.directory} failed: {outcome.error!r}. Give the same command to go on."
    )
