"""prunetune: constrained neural-network pruning by reinforcement learning on Ray."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
