"""Costs: what a candidate costs, tabulated or measured, in one registry."""
