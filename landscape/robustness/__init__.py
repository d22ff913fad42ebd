"""Attacks and the accuracy that is left under them."""
