"""Figures of the study. They draw what ``landscape.study`` has computed and compute nothing themselves."""

from landscape.report.figures import FIGURES, FORMATS, draw_figures

__all__ = ["FIGURES", "FORMATS", "draw_figures"]
