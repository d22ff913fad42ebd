"""Curvature, level sets and widths of any Objective; knows no model, no data and no file."""
