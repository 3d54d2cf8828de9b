"""Repair: closed-form correction of the layers that read slimmed groups."""

from __future__ import annotations

from .moments import LayerMoments, gather_moments
from .quick import QuickRepair

__all__ = ["LayerMoments", "QuickRepair", "gather_moments"]
