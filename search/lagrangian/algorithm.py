"""Lagrangian PPO: one iteration samples, moves the multipliers, then the policy."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.ppo import LEARNER_RESULTS_KL_KEY, PPO
from ray.rllib.core.learner.learner import ENTROPY_KEY
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from ..._compat import sample_episodes, seed_environments
from .config import ConstrainedSettings
from .connectors import episode_context, step_costs
from .learner import LagrangianLearner
from .multipliers import held_costs

__all__ = ["LagrangianPPO", "LagrangianPPOConfig", "episode_costs"]

_RESULTS = "lagrangian"
_SEED = "lagrangian_seed"
_SAMPLING, _LEARNING = 0, 1


class LagrangianPPO(PPO):
    """PPO under constraints on the mean undiscounted costs of an episode.

    ``train()`` returns, under ``lagrangian``: ``multipliers`` and ``episode_costs`` by name of the
    cost, with several contexts by ``NAME@CONTEXT`` (the means of this iteration and the multipliers
    that its update used), ``feasible_share`` (episodes of this iteration within all limits),
    ``episodes`` (their number), ``episode_return`` (their mean), ``entropy`` of the policy by
    module, in nats, and, where the KL loss is on, ``kl_coefficient`` by module. Under Tune all of
    them become TensorBoard curves.

    Every iteration seeds all processes from the config's seed and its own number. A run that is
    stopped after any iteration and restored therefore samples what it would have sampled, and
    a stochastic environment gets a new seed each iteration (RLlib alone resets complete episodes
    with one and the same). Without a seed in the config one is drawn, and kept in checkpoints.
    """

    config: ConstrainedSettings

    def setup(self, config: ConstrainedSettings) -> None:
        """Build everything."""
        super().setup(config)
        seed = self.config.seed
        self._base_seed = secrets.randbits(32) if seed is None else int(seed)

    @classmethod
    def get_default_config(cls) -> LagrangianPPOConfig:
        """The defaults."""
        return LagrangianPPOConfig()

    def training_step(self) -> None:
        """Sample, update the multipliers with what was sampled, then the policy."""
        constraints = self.config.get_constraints()
        episodes = self._sample()
        if not episodes:
            return
        contexts = self.config.contexts
        costs = episode_costs(episodes, len(self.config.limits))
        finished = _contexts([each for each in episodes if each.is_done], contexts)
        per_context = [costs[finished == context] for context in range(contexts)]
        mean = np.concatenate([_mean(each) for each in per_context])
        # Before the policy: a multiplier that lags an iteration behind overshoots more.
        limits, deviations = np.array(self.config.limits), self.config.cost_deviations
        held = np.concatenate([held_costs(each, limits, deviations) for each in per_context])
        multipliers = self._on_learners(lambda learner: learner.update_multipliers(held))[0]
        returns = np.array([episode.get_return() for episode in episodes], dtype=np.float64)
        where = _contexts(episodes, contexts)
        self._on_learners(lambda learner: learner.set_reward_scale(returns, where))
        self._learn(episodes)
        for name, cost, multiplier in zip(constraints.names, mean, multipliers, strict=True):
            self._report("episode_costs", name, value=float(cost))
            self._report("multipliers", name, value=float(multiplier))
        within = np.all(costs <= limits, axis=1)
        self._report("feasible_share", value=float(within.mean()) if len(costs) else float("nan"))
        self._report("episodes", value=float(len(costs)))
        self._report("episode_return", value=float(np.mean(returns)))

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """RLlib's state and the seed."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        return {**state, _SEED: self._base_seed}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`get_state` returned."""
        super().set_state(state)
        self._base_seed = state.get(_SEED, self._base_seed)

    def seed_sampling(self) -> None:
        """Seed the env runners' processes as the next iteration begins with it.

        Whoever draws actions of the policy without an iteration draws those of the next one.
        """
        base, iteration = self._base_seed, self.iteration

        def seed(runner: Any) -> None:
            drawn = _seed_process(base, iteration, _SAMPLING, runner.worker_index)
            seed_environments(runner, drawn)

        self.env_runner_group.foreach_env_runner(seed)

    def _sample(self) -> list[SingleAgentEpisode]:
        self.seed_sampling()
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            episodes, results = sample_episodes(
                self.env_runner_group,
                self.config.total_train_batch_size,
                self.config.sample_timeout_s,
            )
            if episodes:
                self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        return episodes

    def _learn(self, episodes: list[SingleAgentEpisode]) -> None:
        base, iteration = self._base_seed, self.iteration
        sampled = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
        trained = (LEARNER_RESULTS, ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME)
        self._on_learners(lambda learner: _seed_process(base, iteration, _LEARNING, 0))
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                episodes=episodes,
                timesteps={
                    NUM_ENV_STEPS_SAMPLED_LIFETIME: self.metrics.peek(sampled),
                    NUM_MODULE_STEPS_TRAINED_LIFETIME: self.metrics.peek(trained, default=0),
                },
                num_epochs=self.config.num_epochs,
                minibatch_size=self.config.minibatch_size,
                shuffle_batch_per_epoch=self.config.shuffle_batch_per_epoch,
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        modules = set(results[0].keys()) - {ALL_MODULES}
        for name in sorted(modules):
            entropy = self.metrics.peek((LEARNER_RESULTS, name, ENTROPY_KEY))
            self._report("entropy", name, value=float(entropy))
        if self.config.use_kl_loss:
            self._adapt_kl(sorted(modules))
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                policies=modules,
                inference_only=True,
            )

    def _adapt_kl(self, modules: Sequence[str]) -> None:
        keys = {name: (LEARNER_RESULTS, name, LEARNER_RESULTS_KL_KEY) for name in modules}
        divergence = {name: float(self.metrics.peek(key)) for name, key in keys.items()}
        coefficients = self._on_learners(
            lambda learner: learner.update_kl_coefficients(divergence)
        )[0]
        for name, value in coefficients.items():
            self._report("kl_coefficient", name, value=value)

    def _on_learners(self, call: Callable[[LagrangianLearner], Any]) -> list[Any]:
        return [result.get() for result in self.learner_group.foreach_learner(call)]

    def _report(self, *key: str, value: float) -> None:
        self.metrics.log_value((_RESULTS, *key), value, window=1)


class LagrangianPPOConfig(ConstrainedSettings):
    """Configures `LagrangianPPO`.

    The environment reports its costs at every step, as a vector in ``info["costs"]`` or as a
    number in ``info["cost"]``.

    Example::

        config = (
            LagrangianPPOConfig()
            .environment("my-env")
            .env_runners(num_envs_per_env_runner=32)
            .training(train_batch_size_per_learner=32 * 20)
            .constraints(limits=[0.5], names=["flops"])
            .debugging(seed=0)
        )
        algorithm = config.build_algo()
        result = algorithm.train()["lagrangian"]
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or LagrangianPPO)


def episode_costs(episodes: Sequence[SingleAgentEpisode], count: int) -> NDArray[np.float64]:
    """Undiscounted costs of finished episodes, float64 [number finished, B]."""
    finished = [episode for episode in episodes if episode.is_done]
    totals = [
        step_costs(episode, count, len(episode)).sum(axis=0, dtype=np.float64)
        for episode in finished
    ]
    return np.array(totals, dtype=np.float64).reshape(len(finished), count)


def _contexts(episodes: Sequence[SingleAgentEpisode], count: int) -> NDArray[np.int64]:
    return np.array([episode_context(each, count) for each in episodes], dtype=np.int64)


def _mean(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    return costs.mean(axis=0) if len(costs) else np.full(costs.shape[1], np.nan)


def _seed_process(*entropy: int) -> int:
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed
