"""Evaluations: all measures and costs of a candidate, and what computes them."""
