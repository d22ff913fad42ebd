"""Weights from and to other programs' files, read with suspicion and written exactly."""

from landscape.interchange.exporting import EXPORT_SUFFIXES, export_snapshot
from landscape.interchange.importing import Imported, ImportOptions, import_run
from landscape.interchange.naming import Mapping, parse_mapping

__all__ = [
    "EXPORT_SUFFIXES",
    "ImportOptions",
    "Imported",
    "Mapping",
    "export_snapshot",
    "import_run",
    "parse_mapping",
]
