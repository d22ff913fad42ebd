"""Widths of loss minima in parameter space and in input space, measured over stored training runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from landscape.errors import LandscapeError

if TYPE_CHECKING:
    from landscape.geometry.eigenpairs import Eigenpairs as Eigenpairs
    from landscape.geometry.eigenpairs import top_eigenpairs as top_eigenpairs
    from landscape.geometry.level_sets import LevelSetDistance as LevelSetDistance
    from landscape.geometry.level_sets import level_set_distance as level_set_distance
    from landscape.geometry.level_sets import width as width
    from landscape.geometry.operators import SymmetricOperator as SymmetricOperator
    from landscape.geometry.operators import curvature_operator as curvature_operator
    from landscape.geometry.sharpness import WorstCaseSharpness as WorstCaseSharpness
    from landscape.geometry.sharpness import worst_case_sharpness as worst_case_sharpness
    from landscape.geometry.spectrum import SpectralDensity as SpectralDensity
    from landscape.geometry.spectrum import block_traces as block_traces
    from landscape.geometry.spectrum import diagonal as diagonal
    from landscape.geometry.spectrum import frobenius_norm as frobenius_norm
    from landscape.geometry.spectrum import spectral_density as spectral_density
    from landscape.geometry.spectrum import trace as trace
    from landscape.interchange import ImportOptions as ImportOptions
    from landscape.interchange import export_snapshot as export_snapshot
    from landscape.interchange import import_run as import_run
    from landscape.objectives import Objective as Objective
    from landscape.objectives import objective as objective
    from landscape.problem.input_objective import input_objective as input_objective
    from landscape.problem.own_data import open_dataset as open_dataset
    from landscape.problem.parameter_objective import parameter_objective as parameter_objective
    from landscape.report import html_report as html_report
    from landscape.report import report_tables as report_tables
    from landscape.robustness.accuracy import robust_accuracy as robust_accuracy
    from landscape.robustness.audit import MaskingAudit as MaskingAudit
    from landscape.robustness.audit import masking_audit as masking_audit
    from landscape.robustness.fgsm import fgsm as fgsm
    from landscape.robustness.ladder import Ladder as Ladder
    from landscape.robustness.ladder import run_ladder as run_ladder
    from landscape.snapshots import Snapshot as Snapshot
    from landscape.snapshots import load_snapshot as load_snapshot
    from landscape.study.associations import CorrelateConfig as CorrelateConfig
    from landscape.study.associations import Correlations as Correlations
    from landscape.study.correlate import correlate as correlate
    from landscape.study.given import Given as Given
    from landscape.study.measure import measure as measure
    from landscape.study.measure_config import MeasureConfig as MeasureConfig
    from landscape.study.problems import Problem as Problem
    from landscape.study.problems import load_problem as load_problem
    from landscape.study.table import read_rows_csv as read_rows_csv
    from landscape.training.config import TrainingConfig as TrainingConfig
    from landscape.training.loop import train as train

# Where each public name lives. They are imported on first use: torch takes seconds, and `--help` needs none of it.
_HOMES = {
    "CorrelateConfig": "study.associations",
    "Correlations": "study.associations",
    "Eigenpairs": "geometry.eigenpairs",
    "Given": "study.given",
    "ImportOptions": "interchange",
    "Ladder": "robustness.ladder",
    "LevelSetDistance": "geometry.level_sets",
    "MaskingAudit": "robustness.audit",
    "MeasureConfig": "study.measure_config",
    "Objective": "objectives",
    "Problem": "study.problems",
    "Snapshot": "snapshots",
    "SpectralDensity": "geometry.spectrum",
    "SymmetricOperator": "geometry.operators",
    "TrainingConfig": "training.config",
    "WorstCaseSharpness": "geometry.sharpness",
    "block_traces": "geometry.spectrum",
    "correlate": "study.correlate",
    "curvature_operator": "geometry.operators",
    "diagonal": "geometry.spectrum",
    "export_snapshot": "interchange",
    "fgsm": "robustness.fgsm",
    "frobenius_norm": "geometry.spectrum",
    "html_report": "report",
    "import_run": "interchange",
    "input_objective": "problem.input_objective",
    "level_set_distance": "geometry.level_sets",
    "load_problem": "study.problems",
    "load_snapshot": "snapshots",
    "masking_audit": "robustness.audit",
    "measure": "study.measure",
    "objective": "objectives",
    "open_dataset": "problem.own_data",
    "parameter_objective": "problem.parameter_objective",
    "read_rows_csv": "study.table",
    "report_tables": "report",
    "robust_accuracy": "robustness.accuracy",
    "run_ladder": "robustness.ladder",
    "spectral_density": "geometry.spectrum",
    "top_eigenpairs": "geometry.eigenpairs",
    "trace": "geometry.spectrum",
    "train": "training.loop",
    "width": "geometry.level_sets",
    "worst_case_sharpness": "geometry.sharpness",
}

__version__ = "0.1.0"
__all__ = ["LandscapeError", "__version__", *_HOMES]  # noqa: PLE0604  (the keys are strings)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'landscape' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"landscape.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
