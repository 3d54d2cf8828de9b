"""Networks: our own for small images, torchvision's, and the user's."""

from __future__ import annotations

from .build import NETWORKS, NetworkBuilder, build_network
from .checks import check_network
from .shortcut import PadShortcut

__all__ = ["NETWORKS", "NetworkBuilder", "PadShortcut", "build_network", "check_network"]
