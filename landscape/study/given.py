"""What only the caller may name: code of a network, and data that is no dataset of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Given:
    """Names that the caller gives; a snapshot that names code or files itself is not followed.

    ``model`` permits the code ``package.module:function`` that a snapshot names. ``dataset`` is measured on
    instead of what the snapshot was trained on.
    """

    model: str | None = None
    dataset: str | None = None


NOTHING = Given()
