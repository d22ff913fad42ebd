"""``landscape attack``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from landscape.study.given import Given

# Radii that are attacked if none is named, by norm.
RADII = {"inf": (0.1, 0.2, 0.3), "2": (0.5, 1.0, 2.0)}


@click.command(name="attack")
@options.snapshot
@click.option("--ladder", is_flag=True, help="Every attack, from noise to the strongest, in one table.")
@click.option("--audit", is_flag=True, help="Say whether accuracies that rest on gradients can be trusted.")
@click.option("--curve", is_flag=True, help="Draw accuracy against radius, all attacks in one figure.")
@click.option(
    "--examples",
    type=click.IntRange(1, 20),
    is_flag=False,
    flag_value=6,
    default=None,
    show_default="none, or 6 if no number follows",
    help="Draw so many images, their perturbations, adversarial images and predictions.",
)
@click.option(
    "--eps",
    type=options.Positive(),
    multiple=True,
    show_default="0.1 0.2 0.3; 0.5 1 2 in norm 2",
    help="Radius; repeatable.",
)
@click.option("--norm", type=click.Choice(["inf", "2"]), default="inf", help="Norm of the radius.")
@click.option(
    "--samples",
    type=options.SIZE,
    default=None,
    show_default="10000 for FGSM, 1000 for all attacks",
    help="Test samples.",
)
@click.option(
    "--effort",
    type=click.Choice(["full", "quick"]),
    default=None,
    show_default="full for --ladder, else quick",
    help="How hard attacks try.",
)
@click.option("--rung", "rungs", multiple=True, metavar="NAME", help="Only this rung of the ladder; repeatable.")
@click.option(
    "--sibling",
    metavar="RUN",
    default=None,
    help="In the audit, also try images made for this run.",
)
@click.option(
    "--against",
    metavar="RUN",
    default=None,
    help="Compare with this run, sample by sample (McNemar).",
)
@click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    show_default="ledger.sqlite beside the run",
    help="Where decisions are kept; what it holds is not attacked again.",
)
@click.option("--arrays", type=click.Path(path_type=Path, dir_okay=False), help="NPZ file of all decisions.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("attacks"),
    help="Folder for figures.",
)
@options.execution
def command(
    eps: tuple[float, ...],
    norm: str,
    samples: int | None,
    effort: str | None,
    ledger: Path | None,
    **settings: Any,
) -> None:
    """Measure accuracy under attack, and what it is worth.

    Without --ladder, --audit, --curve or --examples: under FGSM, as published (float32 cross-entropy) and exact
    (log-odds). In exact arithmetic both are the same attack: where they differ, the published number is rounding.
    An interrupted ladder goes on where it was. --at also holds for the runs of --sibling and --against.

    \b
    Example:
      landscape attack --snapshot embedded:runs/adam_lr0.0015_b16_seed0 --eps 0.1 --eps 0.3
      landscape attack --snapshot embedded:runs/adam_lr0.006_b16_seed0 --ladder --audit
      landscape attack --snapshot embedded:runs/adam_lr0.006_b16_seed0 --curve --examples
    """
    radii = eps or RADII[norm]
    whole = any(settings[name] for name in ("ladder", "audit", "curve", "examples"))
    if not whole and norm != "inf":
        raise click.BadParameter("FGSM alone is measured in the norm inf; add --ladder.", param_hint="--norm")
    _refuse_idle_options(settings | {"effort": effort, "ledger": ledger}, whole)
    if not whole:
        names = ("run", "at", "given", "seed", "device", "threads", "as_json")
        _fgsm(eps=radii, samples=samples or 10_000, **{name: settings[name] for name in names})
        return
    from .ladder import Request, attack

    attack(
        Request(
            eps=tuple(sorted(set(radii))),
            norm=float(norm),
            samples=samples or 1000,
            quick=(effort or ("full" if settings["ladder"] else "quick")) == "quick",
            ledger=ledger,
            **settings,
        )
    )


def _refuse_idle_options(settings: dict[str, Any], whole: bool) -> None:
    """Refuse options that would change nothing, before anything is done."""
    needs = {"sibling": "audit", "against": "ladder"}
    needs |= {} if whole else dict.fromkeys(("effort", "rungs", "arrays", "ledger"), "ladder")
    for name, needed in needs.items():
        if settings[name] and not settings[needed]:
            option = "--rung" if name == "rungs" else f"--{name}"
            raise click.BadParameter(f"it belongs to --{needed}; add that.", param_hint=option)


def _fgsm(
    run: str,
    at: str,
    eps: tuple[float, ...],
    samples: int,
    given: Given,
    seed: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    from .problem import identity, load

    if max(eps, default=0) > 1:
        note(f"eps {max(eps):g} is wider than the images' range [0, 1]; of 255 it would be {max(eps) / 255:.3g}")
    snapshot, problem = load(run, at, device, threads, given)
    from landscape.robustness.accuracy import accuracy, robust_accuracy
    from landscape.robustness.fgsm import READINGS

    data = problem.test.subset(samples, seed)
    clean = accuracy(problem.model, data.images, data.labels)
    rows = [{"eps": 0.0} | dict.fromkeys(READINGS, clean)]
    with progress(sorted(eps), "attacking") as radii:
        for radius in radii:
            found = {
                name: robust_accuracy(problem.model, data.images, data.labels, radius, loss).accuracy
                for name, loss in READINGS.items()
            }
            rows.append({"eps": radius} | found)
    if as_json:
        inputs = {"snapshot": identity(snapshot, given), "eps": eps, "samples": len(data), "seed": seed}
        print_json("attack", inputs, rows)
    else:
        print_table(["eps", *READINGS], [list(row.values()) for row in rows])
