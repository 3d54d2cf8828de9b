"""Lagrangian PPO: a constrained RL algorithm for RLlib, for any environment with costs."""

from .algorithm import LagrangianPPO, LagrangianPPOConfig
from .multipliers import PidGains

__all__ = ["LagrangianPPO", "LagrangianPPOConfig", "PidGains"]
