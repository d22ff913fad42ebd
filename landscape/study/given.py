"""What only the caller may name: code of a network, and data that is no dataset of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace

from landscape.errors import DatasetError
from landscape.problem.datasets import Dataset
from landscape.problem.own_data import absolute, open_dataset


@dataclass(frozen=True)
class Given:
    """Names that the caller gives; a snapshot that names code or files itself is not followed.

    ``model`` permits the code ``package.module:function`` that a snapshot names. ``dataset`` is measured on
    instead of what the snapshot was trained on; ``digests`` of its images for training and for testing, if given,
    must be found where it is opened.
    """

    model: str | None = None
    dataset: str | None = None
    digests: tuple[str, str] | None = None

    def open(self) -> tuple[Dataset, Dataset] | None:
        """The dataset for training and for testing, None if none is named; DatasetError if it is another one."""
        if self.dataset is None:
            return None
        data = open_dataset(self.dataset, "train"), open_dataset(self.dataset, "test")
        if self.digests not in (None, (data[0].sha256, data[1].sha256)):
            raise DatasetError(f"{self.dataset} holds other data here than where the command was given; copy it.")
        return data

    def located(self) -> Given:
        """The same, for workers that have another folder or another file of this name."""
        data = self.open()
        if self.dataset is None or data is None:
            return self
        return replace(self, dataset=absolute(self.dataset), digests=(data[0].sha256, data[1].sha256))


NOTHING = Given()
