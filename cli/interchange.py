"""``landscape snapshots import``, ``export`` and ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options
from .output import note, print_json, print_table, say

# Values beside the tensors, and letters of a name, that inspect shows.
_SHOWN, _LONGEST = 12, 60


def _object(context: click.Context, parameter: click.Parameter, text: str) -> dict[str, Any]:
    return options.parse_object(text, parameter.opts[0], {"hidden": 25})


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(map(float, text.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} are no numbers such as 0.49,0.48,0.45.") from error


@click.command(name="import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="RUN", help="Run directory.")
@click.option(
    "--model",
    default=None,
    help="Whose weights these are: cnn, mlp, logistic, a classification model of torchvision such as resnet18, or "
    "package.module:function, which is called and returns a torch.nn.Module.",
    show_default="unknown",
)
@click.option("--model-args", default="{}", callback=_object, metavar="JSON", help="Arguments of the model.")
@click.option(
    "--mean", callback=_numbers, default=None, metavar="M[,M…]", help="Mean by channel that the network subtracts."
)
@click.option(
    "--std",
    callback=_numbers,
    default=None,
    metavar="S[,S…]",
    help="Deviation by channel that it divides by, of images in [0, 1]; applied whenever the run is measured.",
)
@click.option(
    "--dataset", default=None, help="Data it was trained on, as for landscape width.", show_default="unknown"
)
@click.option(
    "--settings",
    default="{}",
    callback=_object,
    metavar="JSON",
    help='What is known of the training, such as {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 128, '
    '"seed": 0, "momentum": 0.9}, and anything else in which runs differ; runs of equal settings are replicates.',
)
@click.option("--map", "mappings", multiple=True, metavar="OLD=NEW[@AXES]", help="Rename a tensor. Repeatable.")
@click.option("--strip", multiple=True, metavar="PREFIX", help="Strip a prefix of names. Repeatable.")
@click.option("--key", default=None, help="Entry of a torch checkpoint that holds the weights.")
@click.option(
    "--order",
    type=click.Choice(["auto", "given"]),
    default="auto",
    help="auto: by step, epoch or the number in the name; given: as the files are listed.",
)
@options.as_json
def import_command(
    files: tuple[Path, ...],
    output: Path,
    mappings: tuple[str, ...],
    order: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Store checkpoints of other programs as a run.

    FILE is a torch checkpoint, a safetensors, HDF5, npy or npz file, or a folder of them. They are read by a
    process of its own, within limits of memory and time; no code in a file is ever run.

    \b
    Example:
      landscape snapshots import epoch_*.pt --model cnn --dataset mnist --output runs/mine
    """
    from landscape.interchange import ImportOptions, import_run, parse_mapping
    from landscape.problem.normalisation import Normalisation

    if (mean is None) != (std is None):
        raise click.UsageError("--mean and --std go together.")
    normalisation = Normalisation(mean, std) if mean is not None and std is not None else None
    parsed = tuple(parse_mapping(text) for text in mappings)
    chosen = ImportOptions(mappings=parsed, order_given=order == "given", normalisation=normalisation, **settings)
    result = import_run(files, output, chosen)
    for text in result.notes:
        note(text)
    if as_json:
        facts = {"run": str(result.path), "run_id": result.run_id, "snapshots": result.num_snapshots}
        print_json("snapshots import", {"files": files, "output": output}, facts | {"notes": result.notes})
    else:
        say(str(result.path))


@click.command(name="export")
@click.argument("run", metavar="RUN")
@options.at
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its suffix is the format: .safetensors, .pt, .npz, .npy (the flat vector) or .h5.",
)
def export_command(run: str, at: str, target: Path) -> None:
    """Write the weights of one snapshot for other programs, bit by bit.

    \b
    Example:
      landscape snapshots export runs/adam --at last --to adam.safetensors
    """
    from landscape.interchange import export_snapshot
    from landscape.snapshots import load_snapshot

    say(str(export_snapshot(load_snapshot(run, at), target)))


@click.command(name="inspect")
@click.argument("file", metavar="FILE")
@options.as_json
def inspect_command(file: str, as_json: bool) -> None:
    """Say what an unknown file or run holds: its format, its tensors with their shapes and types.

    FILE is a torch checkpoint, a safetensors, HDF5, npy or npz file, a run, a packed run, a segment, or a ledger
    of measurements. It is read by a process of its own, within limits of memory and time; no code in it is run.

    \b
    Example:
      landscape snapshots inspect model.ckpt
    """
    from dataclasses import asdict

    from landscape.interchange import inspect_file
    from landscape.snapshots import resolve

    found = inspect_file(resolve(file))
    if as_json:
        print_json("snapshots inspect", {"file": file}, asdict(found))
        return
    say(f"format: {found.format}")
    # Trainers store their whole state; what matters lies on top.
    facts = sorted(found.facts.items(), key=lambda fact: fact[0].count("."))
    for name, value in facts[:_SHOWN]:
        say(f"{_short(name)}: {value}")
    if len(facts) > _SHOWN:
        say(f"… and {len(facts) - _SHOWN} more values, which --json lists")
    say()
    header = ("name", "shape", "type", "bytes")
    shapes = ("x".join(map(str, entry.shape)) or "scalar" for entry in found.entries)
    rows = zip(found.entries, shapes, strict=True)
    print_table(header, [(_short(entry.name), shape, entry.dtype, entry.bytes) for entry, shape in rows])


def _short(name: str) -> str:
    """A name that leaves room in a line; the ends tell most."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 3]}…{name[-2 * _LONGEST // 3 + 1 :]}"
