"""Figures, tables and the HTML report: they show what ``landscape.study`` has computed."""

from landscape.report.contents import report_tables
from landscape.report.figures import FIGURES, FORMATS, draw_figures
from landscape.report.html import html_report
from landscape.report.tables import Field, Table

__all__ = ["FIGURES", "FORMATS", "Field", "Table", "draw_figures", "html_report", "report_tables"]
