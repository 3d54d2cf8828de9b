"""RLlib's env runner of the default agent: it samples whole candidates and has them judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import SAMPLE_TIMER

from ..ppo import Drawn, draw

__all__ = ["CandidateRunner", "JudgeActions", "Sampled"]


@dataclass(frozen=True)
class Sampled:
    """What became of N actions.

    Attributes:
        signals: The reward of each episode, float64 [N].
        costs: Costs as shares of their limits, so that 1 is the limit, float32 [N, B].
        contexts: Which set of limits each candidate had to keep, int64 [N].
    """

    signals: NDArray[np.float64]
    costs: NDArray[np.float32]
    contexts: NDArray[np.int64]


JudgeActions = Callable[[NDArray[np.float64]], Sampled]
"""Has the candidates of actions float64 [N, size] in [-1, 1] judged."""


class CandidateRunner(SingleAgentEnvRunner):
    """Samples N episodes of one step in one forward pass, without an environment.

    An observation is the limits that a candidate has to keep; an action is a whole candidate. The
    agent that owns the algorithm gives the runner the limits and judges the actions: candidates are
    judged where they were asked for, and episodes carry no more than what the learner reads. State,
    weights and metrics are those of RLlib's own runner.

    The runner's config has ``limits`` (one list of B numbers per episode) and ``action_size`` in
    ``env_config``.
    """

    judge_actions: JudgeActions | None = None
    """Set by the agent before the first sample."""

    def make_env(self) -> None:
        """There is no environment: the spaces follow from the config."""
        settings = self.config.env_config
        self._observations = np.array(settings["limits"], dtype=np.float32)
        self.env, self.num_envs = None, len(self._observations)
        observation = gym.spaces.Box(0.0, np.inf, self._observations.shape[1:], np.float32)
        action = gym.spaces.Box(-1.0, 1.0, (int(settings["action_size"]),), np.float32)
        spaces = (batch_space(observation, self.num_envs), batch_space(action, self.num_envs))
        self.spaces = {
            INPUT_ENV_SPACES: spaces,
            INPUT_ENV_SINGLE_SPACES: (observation, action),
            DEFAULT_MODULE_ID: (observation, action),
        }

    @property
    def observations(self) -> NDArray[np.float32]:
        """The limits that each candidate of an iteration has to keep, float32 [N, B]."""
        return self._observations

    def assert_healthy(self) -> None:
        """Make sure that there is a policy."""
        assert self.module is not None

    def sample(self, **how_many: Any) -> list[SingleAgentEpisode]:
        """One iteration: all episodes, however many are asked for.

        Args:
            how_many: What RLlib asks for; an iteration is never more or less.
        """
        with self.metrics.log_time(SAMPLE_TIMER):
            return self._iteration()

    def _iteration(self) -> list[SingleAgentEpisode]:
        if self.judge_actions is None:
            raise RuntimeError("The runner has nobody to judge its candidates.")
        drawn = draw(self.module, self._observations)
        sampled = self.judge_actions(drawn.clipped)
        episodes = [self._episode(index, drawn, sampled) for index in range(self.num_envs)]
        self._done_episodes_for_metrics.extend(episodes)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=len(episodes))
        self._increase_sampled_metrics(len(episodes), len(episodes))
        return episodes

    def _episode(
        self,
        index: int,
        drawn: Drawn,
        sampled: Sampled,
    ) -> SingleAgentEpisode:
        observation = self._observations[index]
        infos = {"costs": sampled.costs[index], "context": int(sampled.contexts[index])}
        episode = SingleAgentEpisode(
            # A random name, which is the default, would decide the order of sums in the learner.
            id_=f"{self.num_env_steps_sampled_lifetime}-{index:06d}",
            observation_space=self.spaces[DEFAULT_MODULE_ID][0],
            action_space=self.spaces[DEFAULT_MODULE_ID][1],
        )
        episode.add_env_reset(observation=observation, infos={})
        episode.add_env_step(
            observation=observation,
            action=drawn.actions[index],
            reward=float(sampled.signals[index]),
            infos=infos,
            terminated=True,
            extra_model_outputs={
                Columns.ACTION_LOGP: drawn.logp[index],
                Columns.ACTION_DIST_INPUTS: drawn.inputs[index],
            },
        )
        return episode.to_numpy()
