"""Edges of convergence on disk: one edge.json beside the runs of its search."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from landscape.errors import ConfigurationError, CorruptSnapshotError
from landscape.snapshots.commit import commit_bytes, make_directory, remove_orphans
from landscape.snapshots.description import check_schema
from landscape.training.config import TrainingConfig
from landscape.training.edge import RULE, Edge, EdgeSearch, Probe, Train, edge_name, judge, search_edge

EDGE_FILE = "edge.json"
SCHEMA = 1
# The folder of edges that commands use by default.
DEFAULT_FOLDER = "edges"
# What an edge does not depend on, or what it is a function of.
_NOT_IDENTITY = frozenset({"learning_rate", "seed", "epochs", "epsilon", "snapshot_every"})


def stored_or_searched(search: EdgeSearch, output: Path | str, train: Train) -> Edge:
    """The edge stored below ``output`` by this very search, or else `search_edge`, stored when it has ended.

    Raises:
        LandscapeError: If what is stored is damaged, or a run cannot be trained.
    """
    folder = Path(output) / edge_name(search.config)
    if (folder / EDGE_FILE).exists() and (stored := read_edge(folder)).search == search:
        return stored
    edge = search_edge(search, folder, train)
    write_edge(folder, edge)
    return edge


class StoredRate(NamedTuple):
    """An edge as the learning rate of a run, and the folder that it is from."""

    learning_rate: float
    folder: Path


def rate_at_edge(output: Path | str, config: TrainingConfig) -> StoredRate:
    """The edge stored below ``output`` for the settings of a run; of several that of the longest runs.

    Raises:
        ConfigurationError: If there is none.
        CorruptSnapshotError: If one of those that are there is damaged.
    """
    edges = list(stored_edges(output))
    fitting = [e for e in edges if identity(e.search.config) == identity(config)]
    for edge in sorted(fitting, key=lambda edge: edge.search.config.epochs, reverse=True):
        if edge.bracketed and edge.learning_rate is not None:
            return StoredRate(edge.learning_rate, Path(output) / edge_name(edge.search.config))
    there = ", ".join(f"{edge_name(e.search.config)}{'' if e.bracketed else ' (not found)'}" for e in edges)
    raise ConfigurationError(
        f"no edge of convergence was found yet for these settings in {output}, which holds {there or 'none'}. "
        f"Find it with: {command_for(config, output)}"
    )


def stored_edges(output: Path | str) -> Iterator[Edge]:
    """All edges below a folder, by name."""
    for file in sorted(Path(output).glob(f"*/{EDGE_FILE}")):
        yield read_edge(file.parent)


def identity(config: TrainingConfig) -> dict[str, Any]:
    """The settings that an edge is a function of, but for the length of its runs, as plain values."""
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_IDENTITY}
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def command_for(config: TrainingConfig, output: Path | str) -> str:
    """The command that finds the edge for the settings of a run."""
    plain, default = identity(config), identity(TrainingConfig())
    words = ["landscape", "edge"]
    for name in (f.name for f in fields(config) if f.name in plain):
        if plain[name] != default[name] or name in ("optimizer", "batch_size"):
            value = plain[name] if isinstance(plain[name], str) else json.dumps(plain[name])
            words += [f"--{name.replace('_', '-')}", value]
    return shlex.join(words + (["--output", str(output)] if str(output) != DEFAULT_FOLDER else []))


# ---- the file


def write_edge(folder: Path, edge: Edge) -> None:
    """Write edge.json in one step, over another that is there."""
    make_directory(folder)
    remove_orphans(folder)
    commit_bytes(folder / EDGE_FILE, json.dumps(_document(edge), indent=2, allow_nan=False).encode() + b"\n")


def _document(edge: Edge) -> dict[str, Any]:
    search = edge.search
    return {
        "schema": SCHEMA,
        "settings": identity(search.config),
        "search": {
            "epochs": search.config.epochs,
            "seeds": search.seeds,
            "start": search.config.learning_rate,
            "tolerance": search.tolerance,
        },
        "rule": RULE,
        "loss_limit": edge.loss_limit,
        "edge": edge.learning_rate,
        "above": edge.above,
        "probes": [
            {
                "learning_rate": probe.learning_rate,
                "converged": probe.converged,
                "losses": [loss if math.isfinite(loss) else None for loss in probe.losses],
            }
            for probe in edge.probes
        ],
    }


def read_edge(folder: Path) -> Edge:
    """The edge that a folder holds.

    Raises:
        CorruptSnapshotError: If edge.json is damaged.
        UnsupportedSchemaError: If it was written by a newer version.
    """
    file = folder / EDGE_FILE
    try:
        document = json.loads(file.read_bytes())
        check_schema(document, str(file), SCHEMA)
        edge = _edge_of(document)
        if (edge.learning_rate, edge.above) != (document["edge"], document["above"]):
            raise ValueError("its bracket does not follow from its losses")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptSnapshotError(
            f"{file} does not hold an edge ({error}). Remove it and search again: the runs beside it are kept."
        ) from error
    return edge


def _edge_of(document: dict[str, Any]) -> Edge:
    search, limit = document["search"], document["loss_limit"]
    config = TrainingConfig(**document["settings"], learning_rate=search["start"], epochs=search["epochs"])
    probes = tuple(_probe_of(entry, limit, search["seeds"]) for entry in document["probes"])
    return Edge(EdgeSearch(config, search["seeds"], search["tolerance"]), limit, probes)


def _probe_of(entry: dict[str, Any], loss_limit: float, seeds: int) -> Probe:
    losses = [math.nan if loss is None else loss for loss in entry["losses"]]
    if len(losses) != seeds or not isinstance(entry["learning_rate"], float):
        raise ValueError(f"{entry} are not the losses of {seeds} seeds at a learning rate")
    return judge(entry["learning_rate"], losses, loss_limit)
