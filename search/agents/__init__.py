"""Agents: what proposes candidates."""

from __future__ import annotations

from .agent import Agent, BlackBoxAgent, Iteration
from .registry import AGENTS, check_agent, make_agent

__all__ = ["AGENTS", "Agent", "BlackBoxAgent", "Iteration", "check_agent", "make_agent"]
