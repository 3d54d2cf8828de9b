"""Measures: numbers from one pass of a candidate over the validation images."""
