"""Rank statistics of runs in cells of equal settings: plain arrays in, frozen results out."""
