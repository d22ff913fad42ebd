"""From a foreign file's names to the model's: prefixes stripped, tensors renamed and transposed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from landscape.errors import ConfigurationError, UnsupportedFormatError

# Of data parallelism, Lightning and timm, torch.compile.
PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True)
class Mapping:
    """One tensor's name in the file and in the model, and the order of its axes there (None: as it is)."""

    old: str
    new: str
    axes: tuple[int, ...] | None = None


def parse_mapping(text: str) -> Mapping:
    """``old=new``, or ``old=new@3,2,0,1`` with the file's axes in the model's order; ConfigurationError."""
    match = re.fullmatch(r"(.+)=([^=@]+)(?:@(\d(?:,\d)*))?", text)
    axes = tuple(map(int, match[3].split(","))) if match and match[3] else None
    if not match or (axes is not None and sorted(axes) != list(range(len(axes)))):
        raise ConfigurationError(
            f"Got the mapping {text!r}; write old=new, or old=new@3,2,0,1 to bring its axes into that order."
        )
    return Mapping(match[1], match[2], axes)


def renamed(
    tensors: dict[str, Tensor], mappings: Sequence[Mapping], strip: Sequence[str], wanted: frozenset[str] | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by their names in the model, and notes on what was done.

    Args:
        tensors: By their names in the file.
        mappings: What is renamed, after prefixes were stripped; Keras files keep nothing else.
        strip: Prefixes given by the user; each must be one of some name.
        wanted: The model's names. Common prefixes are stripped only if these are not there as they are.
    """
    notes: list[str] = []
    for prefix in strip:
        tensors = _stripped(tensors, prefix)
        notes.append(f"stripped the prefix {prefix!r}")
    found = _common_prefix(tensors, {mapping.old for mapping in mappings}, wanted)
    if found:
        tensors = {name.removeprefix(found): tensor for name, tensor in tensors.items()}
        notes.append(f"stripped the prefix {found!r}")
    return _mapped(tensors, mappings), notes


def _stripped(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    if not any(name.startswith(prefix) for name in tensors):
        raise ConfigurationError(f"No name begins with {prefix!r}; there are {_some(tensors)}. Leave --strip out.")
    short = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if len(short) != len(tensors) or "" in short:
        raise ConfigurationError(f"Without {prefix!r} two names are the same, or one is empty. Use --map.")
    return short


def _common_prefix(tensors: dict[str, Tensor], mapped: set[str], wanted: frozenset[str] | None) -> str:
    """The longest chain of known prefixes that all names have, where the model does not have them too."""
    names, found = set(tensors), ""
    if wanted is not None and wanted <= names:
        return ""
    while not mapped & {name.removeprefix(found) for name in names}:
        longer = [found + prefix for prefix in PREFIXES if all(name.startswith(found + prefix) for name in names)]
        if not longer or longer[0] in names:
            break
        found = longer[0]
        if wanted is not None and wanted <= {name.removeprefix(found) for name in names}:
            break
    return found


def _mapped(tensors: dict[str, Tensor], mappings: Sequence[Mapping]) -> dict[str, Tensor]:
    missing = [mapping.old for mapping in mappings if mapping.old not in tensors]
    if missing:
        raise ConfigurationError(
            f"The mapped names {', '.join(missing)} are not there; there are {_some(tensors)}."
        )
    new = {mapping.old: mapping for mapping in mappings}
    names = [new[name].new if name in new else name for name in tensors]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len(new) != len(mappings):
        raise ConfigurationError(f"The mappings lead to {', '.join(twice) or 'one tensor'} twice. Change --map.")
    return {
        name: _permuted(new[old], tensor) if old in new else tensor
        for name, (old, tensor) in zip(names, tensors.items(), strict=True)
    }


def _permuted(mapping: Mapping, tensor: Tensor) -> Tensor:
    if mapping.axes is None:
        return tensor
    if len(mapping.axes) != tensor.ndim:
        raise UnsupportedFormatError(
            f"{mapping.old} has {tensor.ndim} axes, its mapping {len(mapping.axes)}. Name each axis once."
        )
    return tensor.permute(mapping.axes).contiguous()


def _some(tensors: dict[str, Tensor]) -> str:
    return ", ".join(list(tensors)[:12]) + (", …" if len(tensors) > 12 else "")
