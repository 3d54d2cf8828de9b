"""Repair: closed-form correction of the layers that read slimmed groups."""

from __future__ import annotations

from .gathering import gather_moments
from .moments import InputMoments, LayerMoments
from .quick import QuickRepair

__all__ = ["InputMoments", "LayerMoments", "QuickRepair", "gather_moments"]
