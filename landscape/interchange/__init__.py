"""Weights from and to other programs' files, read with suspicion and written exactly."""

from landscape.interchange.exporting import EXPORT_SUFFIXES, export_snapshot
from landscape.interchange.importing import Imported, ImportOptions, import_run
from landscape.interchange.inspecting import Entry, Inspection
from landscape.interchange.naming import Mapping, parse_mapping
from landscape.interchange.reading import inspect_file

__all__ = [
    "EXPORT_SUFFIXES",
    "Entry",
    "ImportOptions",
    "Imported",
    "Inspection",
    "Mapping",
    "export_snapshot",
    "import_run",
    "inspect_file",
    "parse_mapping",
]
