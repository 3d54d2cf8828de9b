"""Artifacts: a pruned network on disk that is data, says what was kept, and can be verified."""

from __future__ import annotations

from .loading import Artifact, load_artifact
from .saving import save_artifact
from .verifying import verify_artifact

__all__ = ["Artifact", "load_artifact", "save_artifact", "verify_artifact"]
