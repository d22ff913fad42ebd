"""What ``landscape attack`` does beyond FGSM: the ladder, the audit, the curve and the examples."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import counter, file_name, note, print_json, print_table, say
from .problem import identity, load
from .study import default_ledger, open_ledger

if TYPE_CHECKING:
    from landscape.robustness.audit import MaskingAudit
    from landscape.robustness.ladder import Ladder
    from landscape.snapshots import Snapshot
    from landscape.study.attack import AttackConfig
    from landscape.study.given import Given
    from landscape.study.ledger import Ledger
    from landscape.study.problems import Problem

# Radii of a curve from 0 to the largest one, both included.
_CURVE_RADII = 13
# Reasons and notes are folded to this width.
_WIDTH = 110


@dataclass(frozen=True)
class Request:
    """All options of the command."""

    run: str
    at: str
    ladder: bool
    audit: bool
    curve: bool
    examples: int | None
    eps: tuple[float, ...]
    norm: float
    samples: int
    quick: bool
    rungs: tuple[str, ...]
    sibling: str | None
    against: str | None
    given: Given
    ledger: Path | None
    arrays: Path | None
    output: Path
    seed: int
    device: str
    threads: int | None
    as_json: bool


def attack(request: Request) -> None:
    """Measure what is asked for, print it, and draw it."""
    snapshot, problem = load(request.run, request.at, request.device, request.threads, request.given)
    config = _config(request)
    config.rungs()  # refuses unknown names before anything is written
    others = {name: _other(request, name) for name in (request.sibling, request.against) if name is not None}
    for name, (_, other) in others.items():
        _check_same_data(request.run, problem, name, other)
    results: dict[str, Any] = {"snapshot": identity(snapshot, request.given)}
    files: list[str] = []
    with open_ledger(request.ledger or default_ledger(request.run)) as ledger:
        results["ledger"] = str(ledger.path)
        ladder = _measure(snapshot, problem, config, ledger, "attacking")
        shown = _at(ladder, request.eps)
        if request.ladder:
            results["ladder"] = _show_ladder(shown, request.as_json)
        if request.against is not None:
            its = _measure(*others[request.against], config, ledger, "attacking the other")
            results["against"] = _show_comparison(shown, _at(its, request.eps), request.as_json)
    if request.audit:
        sibling = None if request.sibling is None else others[request.sibling][1]
        results["audit"] = [
            _show_audit(_audit(problem, config, ladder, radius, sibling), request.as_json)
            for radius in request.eps
        ]
    for name, why in ladder.left_out.items():
        note(f"left out: {name}: {why}")
    if request.arrays is not None:
        files.append(_write_arrays(request.arrays, ladder))
    files += _draw(request, snapshot, problem, ladder)
    if request.as_json:
        results["files"] = files
        print_json("attack", _inputs(request, len(ladder.nearest)), results)
    if files:
        note("\n".join(["written:", *(f"  {file}" for file in files)]))


def _config(request: Request) -> AttackConfig:
    from landscape.robustness.rungs import FULL, QUICK
    from landscape.study.attack import AttackConfig

    radii = set(request.eps)
    if request.curve:
        step = max(request.eps) / (_CURVE_RADII - 1)
        radii |= {float(f"{i * step:.6g}") for i in range(_CURVE_RADII)}
    return AttackConfig(
        eps=tuple(sorted(radii)),
        norm=request.norm,
        samples=request.samples,
        seed=request.seed,
        effort=QUICK if request.quick else FULL,
        only=request.rungs,
    )


def _inputs(request: Request, count: int) -> dict[str, Any]:
    names = ("at", "eps", "norm", "rungs", "sibling", "against", "seed")
    return {name: getattr(request, name) for name in names} | {
        "dataset": request.given.dataset,
        "norm": "inf" if math.isinf(request.norm) else request.norm,
        "samples": count,
        "effort": "quick" if request.quick else "full",
    }


def _other(request: Request, run: str) -> tuple[Snapshot, Problem]:
    return load(run, request.at, request.device, request.threads, request.given)


def _check_same_data(run: str, problem: Problem, name: str, other: Problem) -> None:
    from landscape.errors import DatasetError

    if problem.test.sha256 != other.test.sha256:
        raise DatasetError(
            f"{name} was trained on {other.test.name}, {run} on {problem.test.name}: they share no images to be "
            "attacked. Name one dataset for both with --dataset."
        )


def _measure(snapshot: Snapshot, problem: Problem, config: AttackConfig, ledger: Ledger, label: str) -> Ladder:
    from landscape.study.attack import measure_ladder, num_decisions

    total = num_decisions(config, problem.test.subset(config.samples, config.seed))
    with counter(label, total) as bar:
        return measure_ladder(snapshot, problem, config, ledger, bar.update)


def _at(ladder: Ladder, eps: Sequence[float]) -> Ladder:
    """The ladder at some of its radii."""
    places = [ladder.at(radius) for radius in eps]
    gradients, queries = ladder.num_gradients[:, places], ladder.num_queries[:, places]
    for r, rung in enumerate(ladder.rungs):
        if rung.at_once:  # the cost of one call for all radii is counted at the first of them
            gradients[r, 0], queries[r, 0] = ladder.num_gradients[r].sum(), ladder.num_queries[r].sum()
    return replace(
        ladder,
        eps=tuple(eps),
        correct=ladder.correct[:, places],
        num_gradients=gradients,
        num_queries=queries,
    )


def _show_ladder(ladder: Ladder, as_json: bool) -> dict[str, Any]:
    """Print accuracies with their standard errors, and the cost of a sample."""
    count = len(ladder.nearest)
    gradients, queries = ladder.num_gradients.double() / count, ladder.num_queries.double() / count
    if not as_json:
        norm = "ℓ∞" if math.isinf(ladder.norm) else "ℓ2"
        say(f"accuracy in % ± standard error, {count} samples, {norm}; cost of a sample in gradients")
        header = ["rung", *(f"eps {radius:g}" for radius in ladder.eps), "gradients", "queries"]
        lines = [
            [
                name,
                *(_percent(*pair) for pair in zip(ladder.accuracy[r], ladder.standard_error[r], strict=True)),
                f"{gradients[r].sum():9.0f}",
                f"{queries[r].sum():7.0f}",
            ]
            for r, name in enumerate(ladder.names)
        ]
        worst = zip(ladder.worst_accuracy, ladder.worst_standard_error, strict=True)
        lines.append(["worst case", *(_percent(*pair) for pair in worst), "", ""])
        print_table(header, lines)
        say()
    rungs = [
        {
            "name": rung.name,
            "description": rung.description,
            "kind": rung.kind,
            "settings": dict(rung.settings),
            "accuracy": ladder.accuracy[r],
            "standard_error": ladder.standard_error[r],
            "gradients_per_sample": gradients[r],
            "queries_per_sample": queries[r],
        }
        for r, rung in enumerate(ladder.rungs)
    ]
    return {
        "eps": ladder.eps,
        "rungs": rungs,
        "worst_accuracy": ladder.worst_accuracy,
        "worst_standard_error": ladder.worst_standard_error,
        "left_out": ladder.left_out,
    }


def _percent(share: Any, error: Any) -> str:
    return f"{100 * float(share):5.1f} ± {100 * float(error):.1f}"


def _show_comparison(first: Ladder, second: Ladder, as_json: bool) -> list[dict[str, Any]]:
    """Print on how many of the same samples both snapshots differ, rung by rung."""
    from landscape.robustness.mcnemar import mcnemar

    pairs = [(name, first.of(name), second.of(name)) for name in first.names if name in second.names]
    pairs.append(("worst case", first.worst, second.worst))
    rows = []
    for name, mine, other in pairs:
        for e, radius in enumerate(first.eps):
            test = mcnemar(mine[e], other[e])
            shares = mine[e].double().mean().item(), other[e].double().mean().item()
            rows.append(
                {
                    "rung": name,
                    "eps": radius,
                    "accuracy": shares[0],
                    "other": shares[1],
                    "only_this": test.only_first,
                    "only_other": test.only_second,
                    "p_value": test.p_value,
                }
            )
    if not as_json:
        say("against the other run, on the same samples; p: McNemar's test")
        print_table(list(rows[0]), [list(row.values()) for row in rows])
        say()
    return rows


def _audit(
    problem: Problem, config: AttackConfig, ladder: Ladder, eps: float, sibling: Problem | None
) -> MaskingAudit:
    from landscape.robustness.audit import masking_audit
    from landscape.study.attack import samples_and_draws

    data, draws = samples_and_draws(problem, config)
    return masking_audit(
        problem.model,
        data.images,
        data.labels,
        eps,
        config.norm,
        ladder,
        None if sibling is None else sibling.model,
        draws,
    )


def _show_audit(found: MaskingAudit, as_json: bool) -> dict[str, Any]:
    """Print the verdict, its reasons, and the evidence."""
    from landscape.study.attack import audit_evidence

    evidence = audit_evidence(found)
    if not as_json:
        say(f"audit at eps {found.eps:g}: {found.verdict.judgement}")
        for mark, lines in (("because", found.verdict.reasons), ("note", found.verdict.notes)):
            for line in lines:
                say(click.formatting.wrap_text(f"{mark}: {line}", _WIDTH, "  ", "    "))
        print_table(["  evidence", "value"], [[f"  {name}", value] for name, value in evidence.items()])
        say()
    comparisons = [
        {
            "name": name,
            "first": c.first,
            "second": c.second,
            "first_accuracy": c.first_accuracy,
            "second_accuracy": c.second_accuracy,
            "only_first": c.test.only_first,
            "only_second": c.test.only_second,
            "p_value": c.test.p_value,
        }
        for name, c in found.comparisons.items()
    ]
    return {
        "eps": found.eps,
        "verdict": found.verdict.judgement,
        "reasons": found.verdict.reasons,
        "notes": found.verdict.notes,
        "evidence": evidence,
        "comparisons": comparisons,
    }


def _write_arrays(path: Path, ladder: Ladder) -> str:
    from landscape.study.attack import ladder_npz
    from landscape.study.table import write_atomically

    write_atomically(path, ladder_npz(ladder))
    return str(path)


def _draw(request: Request, snapshot: Snapshot, problem: Problem, ladder: Ladder) -> list[str]:
    if not (request.curve or request.examples):
        return []
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
    from landscape.report.attacks import draw_accuracy_curve, draw_examples
    from landscape.study.examples import accuracy_curves, adversarial_examples

    epoch = snapshot.position.epoch
    name, title = file_name(request.run, (f"epoch{epoch}",)), f"{Path(request.run).name}, epoch {epoch}"
    files: list[Path] = []
    if request.curve:
        files += draw_accuracy_curve(accuracy_curves(ladder), title, request.output, f"curve-{name}")
    if request.examples:
        radius = max(request.eps)
        note(f"looking for {request.examples} examples at eps {radius:g}")
        shown = adversarial_examples(problem, request.examples, radius, request.norm, request.seed)
        files += draw_examples(shown, title, request.output, f"examples-{name}")
    return [str(file) for file in files]
