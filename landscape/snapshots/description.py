"""What a run is: everything that decides its weights, and nothing about where or when it ran."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from landscape.errors import ConfigurationError, CorruptSnapshotError, UnsupportedSchemaError
from landscape.snapshots.buffers import BufferLayout, BufferSlot, check_buffer_layout
from landscape.snapshots.layout import Layout, ParameterSlot, check_layout

# The newest schema; a run without buffers is written as the first, which all versions read.
SCHEMA = 2
_KEYS = frozenset({"model", "model_args", "layout", "config", "data_sha256"})


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces; ConfigurationError for NaN, infinity and foreign types."""
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"Got a value that is not plain JSON: {error}. Use only strings, finite numbers, lists and dicts."
        ) from error


def parse_json(text: str | bytes, source: str) -> dict[str, Any]:
    """JSON object in ``text``; CorruptSnapshotError naming ``source`` when it is anything else."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CorruptSnapshotError(
            f"{source} is not valid JSON: {error}. Restore it from a copy, or remove the run and train it again."
        ) from error
    if not isinstance(value, dict):
        raise CorruptSnapshotError(f"{source} holds a {type(value).__name__}, not a JSON object. Restore it.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def check_schema(value: dict[str, Any], source: str, newest: int = SCHEMA) -> None:
    """Raise UnsupportedSchemaError for a newer schema, CorruptSnapshotError for one that is no version."""
    schema = value.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise CorruptSnapshotError(f"{source} says schema {schema!r}; it must be a positive integer. Restore it.")
    if schema > newest:
        raise UnsupportedSchemaError(
            f"{source} has schema {schema}; this version of landscape-torch reads schemas up to {newest}. "
            "Install a newer version."
        )


@dataclass(frozen=True)
class RunDescription:
    """Model, its arguments, layout, settings, data and buffers of a run; values are plain JSON."""

    model: str
    model_args: dict[str, Any]
    layout: Layout
    config: dict[str, Any]
    data_sha256: str
    buffers: BufferLayout = ()

    def __post_init__(self) -> None:
        check_layout(self.layout)
        check_buffer_layout(self.buffers)
        for name in ("model_args", "config"):
            # The round trip copies the value and makes tuples lists, as they will be read back.
            object.__setattr__(self, name, json.loads(canonical_json(getattr(self, name))))
        if not re.fullmatch("[0-9a-f]{64}", self.data_sha256):
            raise ConfigurationError(f"Got data_sha256 {self.data_sha256!r}; it must be 64 lower-case hex digits.")

    @property
    def schema(self) -> int:
        """The oldest schema that can hold the run."""
        return SCHEMA if self.buffers else 1

    @functools.cached_property
    def run_id(self) -> str:
        """Hex sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        value = {
            "model": self.model,
            "model_args": self.model_args,
            "layout": [{**asdict(slot), "shape": list(slot.shape)} for slot in self.layout],
            "config": self.config,
            "data_sha256": self.data_sha256,
        }
        buffers = [{**asdict(slot), "shape": list(slot.shape)} for slot in self.buffers]
        return value | ({"buffers": buffers} if buffers else {})

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json(self.to_dict())

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "the description") -> RunDescription:
        """Inverse of ``to_json``; CorruptSnapshotError on other contents, UnsupportedSchemaError on newer ones."""
        return cls.from_dict(parse_json(text, source), source)

    @classmethod
    def from_dict(cls, value: Any, source: str = "the description") -> RunDescription:
        """Inverse of ``to_dict``; CorruptSnapshotError on other contents, UnsupportedSchemaError on newer ones."""
        if isinstance(value, dict) and "schema" in value:
            check_schema(value, source)
            value = {key: entry for key, entry in value.items() if key != "schema"}
        problem = _problem_of(value)
        if problem:
            raise CorruptSnapshotError(f"{source} does not describe a run: {problem}. Restore it from a copy.")
        try:
            layout = tuple(_slot_of(entry) for entry in value["layout"])
            buffers = tuple(_buffer_of(entry) for entry in value.get("buffers", ()))
            return cls(value["model"], value["model_args"], layout, value["config"], value["data_sha256"], buffers)
        except ConfigurationError as error:
            raise CorruptSnapshotError(f"{source} does not describe a run. {error}") from error


def _problem_of(value: Any) -> str:
    if not isinstance(value, dict) or set(value) - {"buffers"} != _KEYS:
        keys = sorted(value) if isinstance(value, dict) else type(value).__name__
        return f"it holds {keys} instead of {sorted(_KEYS)}"
    types = {"model": str, "model_args": dict, "layout": list, "config": dict, "data_sha256": str}
    types |= {"buffers": list} if "buffers" in value else {}
    wrong = [f"{name!r} is not a {kind.__name__}" for name, kind in types.items() if type(value[name]) is not kind]
    return "; ".join(wrong)


def _slot_of(entry: Any) -> ParameterSlot:
    _check_entry(entry, texts=("name",), numbers=("offset", "numel"))
    return ParameterSlot(entry["name"], tuple(entry["shape"]), entry["offset"], entry["numel"])


def _buffer_of(entry: Any) -> BufferSlot:
    _check_entry(entry, texts=("name", "dtype"), numbers=("offset", "length"))
    return BufferSlot(entry["name"], entry["dtype"], tuple(entry["shape"]), entry["offset"], entry["length"])


def _check_entry(entry: Any, texts: tuple[str, ...], numbers: tuple[str, ...]) -> None:
    names = {*texts, *numbers, "shape"}
    if not isinstance(entry, dict) or set(entry) != names:
        raise ConfigurationError(f"Got the layout entry {entry!r}; it needs {', '.join(sorted(names))}.")
    counts = [*(entry[name] for name in numbers), *(entry["shape"] if type(entry["shape"]) is list else [None])]
    if any(type(entry[name]) is not str for name in texts) or any(type(count) is not int for count in counts):
        raise ConfigurationError(f"Got the layout entry {entry!r} with values of wrong types.")


def differences(stored: RunDescription, asked: RunDescription) -> list[str]:
    """One line per setting that differs, with both values."""
    left, right = _settings(stored.to_dict()), _settings(asked.to_dict())
    names = [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]
    absent = "(absent)"
    return [f"{name}: stored {left.get(name, absent)}, asked for {right.get(name, absent)}" for name in names]


def _settings(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict):
        return {prefix: canonical_json(value)}
    found: dict[str, str] = {} if value or not prefix else {prefix: "{}"}
    for key, entry in value.items():
        found |= _settings(entry, f"{prefix}.{key}" if prefix else key)
    return found
