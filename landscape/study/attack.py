"""The attack ladder of one snapshot through the ledger: what was attacked before is read, the rest is attacked."""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landscape.errors import ConfigurationError
from landscape.problem.datasets import Dataset
from landscape.robustness.accuracy import BATCH
from landscape.robustness.audit import MaskingAudit
from landscape.robustness.draws import Draws
from landscape.robustness.ladder import Decisions, Ladder, Part, assemble, decide, ladder_parts
from landscape.robustness.rungs import FULL, Effort, Rung, ladder_rungs
from landscape.robustness.targets import target_of
from landscape.snapshots import Snapshot
from landscape.study.columns import OK
from landscape.study.ledger import Ledger, content_key
from landscape.study.problems import Problem

# To be raised by hand whenever what a rung finds changes, so that ledgers compute it anew.
VERSION = 3

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class AttackConfig:
    """Which rungs are measured, where, and on what."""

    eps: tuple[float, ...] = (0.1, 0.2, 0.3)
    norm: float = math.inf
    samples: int = 1000  # test samples
    seed: int = 0  # of the subset and of the attacks
    effort: Effort = FULL
    only: tuple[str, ...] = ()  # names of rungs; all if empty
    batch: int = BATCH

    def rungs(self) -> tuple[Rung, ...]:
        """The rungs.

        Raises:
            ConfigurationError: If a name is unknown.
        """
        rungs = ladder_rungs(self.norm, self.effort)
        names = [rung.name for rung in rungs]
        unknown = [name for name in self.only if name not in names]
        if unknown:
            raise ConfigurationError(
                f"there is no rung {unknown[0]!r} in this norm; choose from {', '.join(names)}."
            )
        return tuple(rung for rung in rungs if rung.name in self.only or not self.only)


def measure_ladder(
    snapshot: Snapshot,
    problem: Problem,
    config: AttackConfig,
    ledger: Ledger,
    advance: Callable[[int], None] = lambda _: None,
) -> Ladder:
    """The ladder of a snapshot; each part of it is in the ledger before the next one begins.

    ``advance`` hears the number of decisions made, and of those read.

    Raises:
        LandscapeError: If the network cannot be attacked, or the ledger cannot be used.
    """
    data, draws = samples_and_draws(problem, config)
    parts, left_out = ladder_parts(data.images, len(data), config.eps, config.norm, config.rungs(), config.batch)
    target_of(problem.model, data.images, data.labels)
    digests = {start: _digest(data, start, config.batch) for start in range(0, len(data), config.batch)}
    found = []
    for part in parts:
        subject = _subject(snapshot, part, digests[part.start], config.seed)
        key = content_key(subject)
        stored = ledger.arrays(key)
        if stored:
            decisions = _from_arrays(stored)
        else:
            begin = time.perf_counter()
            decisions = decide(problem.model, data.images, data.labels, part, draws)
            ledger.write(key, subject, {"status": OK}, time.perf_counter() - begin, to_arrays(decisions))
        found.append(decisions)
        advance(len(part))
    return assemble(parts, found, config.eps, config.norm, left_out)


def num_decisions(config: AttackConfig, data: Dataset) -> int:
    """How many decisions a ladder of some samples consists of."""
    parts, _ = ladder_parts(data.images, len(data), config.eps, config.norm, config.rungs(), config.batch)
    return sum(map(len, parts))


def to_arrays(decisions: Decisions) -> dict[str, NDArray[Any]]:
    """Decisions as they are stored: eight samples a byte."""
    return {
        "correct": np.packbits(decisions.correct.numpy(), axis=1),
        "distance": decisions.distance.numpy(),
        "num_gradients": decisions.num_gradients.numpy(),
        "num_queries": decisions.num_queries.numpy(),
    }


def _from_arrays(stored: Arrays) -> Decisions:
    count = len(stored["distance"])
    correct = np.unpackbits(stored["correct"], axis=1, count=count).astype(bool)
    names = ("distance", "num_gradients", "num_queries")
    return Decisions(torch.from_numpy(correct), *(torch.from_numpy(stored[name]) for name in names))


def _subject(snapshot: Snapshot, part: Part, digest: str, seed: int) -> dict[str, Any]:
    """Everything that the decisions of a part depend on."""
    return {
        "measurement": "attack",
        "version": VERSION,
        "theta_sha256": snapshot.theta_sha256,
        "model": snapshot.model,
        "model_args": snapshot.model_args,
        "rung": part.rung.name,
        "settings": dict(part.rung.settings),
        "norm": "inf" if math.isinf(part.rung.norm) else part.rung.norm,
        "eps": part.eps,
        "samples_sha256": digest,
        "first": part.start,  # numbers the samples' random numbers
        "seed": seed,
    } | {name: value for name, value in snapshot.config.items() if name == "normalisation"}


def _digest(data: Dataset, start: int, batch: int) -> str:
    rows = slice(start, start + batch)
    parts: Sequence[torch.Tensor] = (data.images[rows], data.labels[rows])
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part.cpu().numpy()).tobytes())
    return digest.hexdigest()


def samples_and_draws(problem: Problem, config: AttackConfig) -> tuple[Dataset, Draws]:
    """The samples that are attacked, and their random numbers."""
    data = problem.test.subset(config.samples, config.seed)
    return data, Draws(torch.arange(len(data), device=data.labels.device), config.seed)


def audit_evidence(audit: MaskingAudit) -> dict[str, float]:
    """What an audit saw of the gradients, as single numbers."""
    health = audit.health
    quantiles = zip(("q05", "q25", "median", "q75", "q95"), health.margin_quantiles(), strict=True)
    shares = {
        "rounded": health.rounded,
        "vanished": health.vanished,
        "loss_exactly_0": health.loss_is_zero,
        "exact_gradient_0": health.exact_is_zero,
        "step_climbs_higher_than_noise": health.step_climb > health.random_climb,
    }
    medians = {
        "balance_median": health.balance,
        "cosine_median": health.cosine,
        "deviation_from_linear_step_median": health.step_deviation,
        "deviation_from_linear_noise_median": health.random_deviation,
    }
    return (
        {f"share_{name}": which.double().mean().item() for name, which in shares.items()}
        | {name: torch.nanmedian(values).item() for name, values in medians.items()}
        | {f"margin_{name}": value for name, value in quantiles}
    )


def ladder_npz(ladder: Ladder) -> bytes:
    """All decisions of a ladder as an NPZ file."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        rungs=np.array(ladder.names),
        eps=np.array(ladder.eps),
        norm=np.array(ladder.norm),
        correct=ladder.correct.numpy(),
        distance=ladder.distance.numpy(),
        num_gradients=ladder.num_gradients.numpy(),
        num_queries=ladder.num_queries.numpy(),
    )
    return file.getvalue()
