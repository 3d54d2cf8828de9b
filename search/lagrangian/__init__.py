"""Lagrangian PPO: a constrained RL algorithm for RLlib, for any environment with costs."""

from .algorithm import LagrangianPPO
from .config import LagrangianPPOConfig
from .multipliers import PidGains

__all__ = ["LagrangianPPO", "LagrangianPPOConfig", "PidGains"]
