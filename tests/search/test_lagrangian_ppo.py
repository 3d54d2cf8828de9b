"""The algorithm: results, determinism, exact checkpoints, several learners, and the LP optimum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from prunetune._references import resolve
from prunetune.search.lagrangian import LagrangianPPO, LagrangianPPOConfig
from pytest import approx
from ray.tune.registry import register_env

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

LENGTH = 4


class Knapsack(gym.Env[np.ndarray, np.ndarray]):
    """Every action pays by its size and costs by its size and square; the reward comes last."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Draw how much actions pay."""
        super().reset(seed=seed)
        self._step, self._paid = 0, 0.0
        self._price = self.np_random.uniform(0.5, 1.0)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Any:
        """Take some."""
        amount = (float(action[0]) + 1) / 2
        self._step += 1
        self._paid += self._price * amount
        over = self._step == LENGTH
        info = {"costs": np.array([amount, amount**2], dtype=np.float32) / LENGTH}
        return self._observe(), self._paid if over else 0.0, over, False, info

    def _observe(self) -> np.ndarray:
        return np.array([self._step / LENGTH, self._price], dtype=np.float32)


def _config(**runners: Any) -> LagrangianPPOConfig:
    register_env("knapsack", lambda context: Knapsack())
    return (
        LagrangianPPOConfig()
        .environment("knapsack")
        .env_runners(num_envs_per_env_runner=8, **runners)
        .training(
            train_batch_size_per_learner=8 * LENGTH,
            minibatch_size=20,
            num_epochs=3,
            lr=[[0, 0.003], [400, 0.0]],
            entropy_coeff=[[0, 0.01], [400, 0.0]],
            use_kl_loss=True,
            kl_target=1e-4,
        )
        .constraints(limits=[0.3, 0.2], names=["amount", "square"])
        .debugging(seed=3, log_level="ERROR")
    )


def _state(algorithm: LagrangianPPO) -> list[dict[str, Any]]:
    def look(learner: Any) -> dict[str, Any]:
        ((_, optimizer),) = learner.get_optimizers_for_module("default_policy")
        module = learner.module["default_policy"]
        return {
            "multipliers": learner.multipliers.values.tolist(),
            "kl": float(learner.curr_kl_coeffs_per_module["default_policy"]),
            "lr": optimizer.param_groups[0]["lr"],
            "entropy": float(
                learner.entropy_coeff_schedulers_per_module["default_policy"].get_current_value()
            ),
            "weights": [
                parameter.detach().double().sum().item() for parameter in module.parameters()
            ],
        }

    return [found.get() for found in algorithm.learner_group.foreach_learner(look)]


def _train(algorithm: LagrangianPPO) -> tuple[Any, list[list[float]]]:
    """One iteration: what it reports, and the actions that it sampled."""
    sample, actions = algorithm._sample, []

    def remember() -> Any:
        episodes = sample()
        actions.extend(np.ravel(each.get_actions()).tolist() for each in episodes)
        return episodes

    algorithm._sample = remember  # type: ignore[method-assign]
    try:
        return _numbers(algorithm.train()), actions
    finally:
        algorithm._sample = sample  # type: ignore[method-assign]


def _numbers(result: dict[str, Any]) -> Any:
    return {name: _plain(value) for name, value in result["lagrangian"].items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return float(value)


@pytest.fixture
def running() -> Any:
    """Builds algorithms and stops them all at the end."""
    built: list[LagrangianPPO] = []

    def build(config: LagrangianPPOConfig) -> LagrangianPPO:
        built.append(config.build_algo())
        return built[-1]

    yield build
    for algorithm in built:
        algorithm.stop()


def test_results_have_stable_keys_and_the_multipliers_follow_the_costs(running: Any) -> None:
    algorithm = running(_config())
    result = algorithm.train()["lagrangian"]
    assert set(result["multipliers"]) == set(result["episode_costs"]) == {"amount", "square"}
    assert result["episodes"] == 8
    assert 0 <= result["feasible_share"] <= 1
    # A Gaussian of standard deviation 0.3 in one dimension.
    gaussian = 0.5 * np.log(2 * np.pi * np.e * 0.3**2)
    assert result["entropy"]["default_policy"] == pytest.approx(gaussian, abs=0.05)
    # The policy starts near action 0, which takes half of everything: above both limits.
    assert result["episode_costs"]["amount"] == pytest.approx(0.5, abs=0.1)
    for name, limit in (("amount", 0.3), ("square", 0.2)):
        violation = max(0.0, result["episode_costs"][name] - limit)
        damped = (1 + algorithm.config.multiplier_damping) * violation
        assert result["multipliers"][name] == pytest.approx(damped, rel=1e-5)


def test_a_gaussian_policy_starts_as_the_config_says(running: Any) -> None:
    algorithm = running(_config().exploration(std=0.2, output_scale=0.0))
    module = algorithm.get_module()
    observations = torch.rand(5, 2)
    mean, log_std = module.forward_exploration({"obs": observations})["action_dist_inputs"].T
    assert mean.tolist() == [0.0] * 5
    torch.testing.assert_close(log_std.exp(), torch.full((5,), 0.2))
    assert "log_std" in [name.split(".")[-1] for name, _ in module.named_parameters()]


@pytest.mark.slow
def test_the_unit_of_ranked_rewards_is_that_of_the_first_iteration_and_survives_a_restore(
    running: Any, tmp_path: Path
) -> None:
    def unit(algorithm: LagrangianPPO) -> Any:
        looks = algorithm.learner_group.foreach_learner(lambda learner: learner._reward_scales)
        return next(iter(looks)).get().item()

    algorithm = running(_config().constraints(normalise_advantages="ranked"))
    algorithm.train()
    first = unit(algorithm)
    algorithm.train()
    assert unit(algorithm) == first > 0
    algorithm.save_to_path(tmp_path / "checkpoint")
    expected = _numbers(algorithm.train()), _state(algorithm)
    restored = running(_config().constraints(normalise_advantages="ranked"))
    restored.restore_from_path(tmp_path / "checkpoint")
    assert unit(restored) == first
    assert (_numbers(restored.train()), _state(restored)) == expected


class Allowance(gym.Env[np.ndarray, np.ndarray]):
    """One step: pays what is taken, of which every second episode may take much less."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Draw which kind of episode it is."""
        super().reset(seed=seed)
        self._context = int(self.np_random.integers(2))
        self._limit = (0.3, 0.7)[self._context]
        return np.array([self._limit], dtype=np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        """Take some."""
        amount = (float(action[0]) + 1) / 2
        info = {"cost": amount / self._limit, "context": self._context}
        return np.array([self._limit], dtype=np.float32), amount, True, False, info


def test_every_context_has_its_own_multipliers_and_keeps_its_own_limit(
    running: Any, tmp_path: Path
) -> None:
    register_env("allowance", lambda context: Allowance())

    def config() -> LagrangianPPOConfig:
        return (
            LagrangianPPOConfig()
            .environment("allowance")
            .env_runners(num_envs_per_env_runner=32)
            .training(train_batch_size_per_learner=32, minibatch_size=32, lr=0.002)
            .constraints(limits=[1.0], names=["amount"], contexts=2, multiplier_learning_rate=0.3)
            .exploration(std=0.1)
            .debugging(seed=0)
        )

    algorithm = running(config())
    results = [algorithm.train()["lagrangian"] for _ in range(60)][-30:]
    # Taking more always pays, so only its own limit can stop each kind of episode. A unit more of
    # its share of the limit pays the limit itself: that is the multiplier of the optimum.
    for name, limit in (("amount@0", 0.3), ("amount@1", 0.7)):
        assert np.mean([each["episode_costs"][name] for each in results]) == approx(1.0, abs=0.08)
        assert np.mean([each["multipliers"][name] for each in results]) == approx(limit, abs=0.15)
    assert len(results[0]["multipliers"]) == 2
    algorithm.save_to_path(tmp_path / "checkpoint")
    expected = _numbers(algorithm.train())
    restored = running(config())
    restored.restore_from_path(tmp_path / "checkpoint")
    assert _numbers(restored.train()) == expected


def test_the_bound_on_the_standard_deviation_falls_and_survives_a_restore(
    running: Any, tmp_path: Path
) -> None:
    # 32 steps an iteration: the bound halves over the first two.
    algorithm = running(_config().exploration(std=0.4, max_std=[[0, 0.4], [64, 0.1]]))
    deviations = []
    for _ in range(3):
        algorithm.train()
        deviations.append(float(algorithm.get_module().pi.log_std.exp()))
    assert deviations[0] <= 0.25 + 1e-6
    assert max(deviations[1:]) <= 0.1 + 1e-6
    algorithm.save_to_path(tmp_path / "checkpoint")
    expected = _numbers(algorithm.train())
    restored = running(_config())
    restored.restore_from_path(tmp_path / "checkpoint")
    assert _numbers(restored.train()) == expected


def test_deviations_hold_more_than_the_mean_at_the_limit(running: Any) -> None:
    plain = running(_config()).train()["lagrangian"]["multipliers"]
    held = running(_config().constraints(deviations=1.0)).train()["lagrangian"]["multipliers"]
    assert held["amount"] > plain["amount"]


def test_a_margin_is_a_lower_limit_for_the_multipliers_alone(running: Any) -> None:
    lowered = [0.8 * limit for limit in _config().limits]
    margin = running(_config().constraints(margin=0.2)).train()["lagrangian"]
    lower = running(_config().constraints(limits=lowered)).train()["lagrangian"]
    plain = running(_config()).train()["lagrangian"]
    assert margin["multipliers"] == lower["multipliers"]
    assert margin["feasible_share"] == plain["feasible_share"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another(running: Any) -> None:
    runs = []
    for seed in (3, 3, 4):
        algorithm = running(_config().debugging(seed=seed))
        runs.append([_numbers(algorithm.train()) for _ in range(3)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    # Each iteration plays other episodes, although RLlib seeds all resets alike.
    assert len({row["episode_return"] for row in runs[0]}) == 3


@pytest.mark.parametrize("seed", [3, None])
def test_a_restored_run_continues_exactly(running: Any, tmp_path: Path, seed: int | None) -> None:
    algorithm = running(_config().debugging(seed=seed))
    for _ in range(3):
        algorithm.train()
    algorithm.save_to_path(tmp_path / "checkpoint")
    saved = _state(algorithm)
    expected = [_train(algorithm) for _ in range(2)]
    final = _state(algorithm)
    assert len(expected[0][1]) == 8 and expected[0][1] != expected[1][1]

    restored = LagrangianPPO.from_checkpoint(tmp_path / "checkpoint")
    try:
        # Multipliers, KL coefficient, learning rate; then what they and the actions lead to.
        assert _state(restored) == saved
        assert [_train(restored) for _ in range(2)] == expected
        assert _state(restored) == final
    finally:
        restored.stop()


@pytest.mark.slow
def test_remote_runners_and_learners_agree_and_restore(running: Any, tmp_path: Path) -> None:
    config = _config(num_env_runners=2, num_cpus_per_env_runner=0.25).learners(
        num_learners=2, num_cpus_per_learner=0.25
    )
    algorithm = running(config)
    for _ in range(2):
        first, second = (algorithm.train(), _state(algorithm))[1]
        assert first == second
    assert max(first["multipliers"]) > 0
    algorithm.save_to_path(tmp_path / "checkpoint")
    expected = _numbers(algorithm.train())
    final = _state(algorithm)
    algorithm.stop()
    restored = running(config.copy(copy_frozen=False))
    restored.restore_from_path(str(tmp_path / "checkpoint"))
    assert _state(restored) == [first, second]
    assert _numbers(restored.train()) == expected
    assert _state(restored) == final


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="complete_episodes"):
        _config(batch_mode="truncate_episodes").validate()
    with pytest.raises(ValueError, match="normalise"):
        _config().constraints(normalise_advantages="none").validate()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="standard deviation"):
        _config().exploration(std=0.0).validate()
    with pytest.raises(ValueError, match="one finite limit"):
        _config().constraints(limits=[]).validate()


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["lagrange", "pid"])
def test_a_constrained_mdp_is_solved_as_well_as_by_linear_programming(rule: str) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "constrained_mdp.py"
    mdp = resolve(f"{script}:ConstrainedMDP", "benchmark").random(0)
    limit = 0.6 * mdp.optimum(None)[1]
    optimum, cost = mdp.optimum(limit)
    assert cost == pytest.approx(limit)
    algorithm = resolve(f"{script}:build", "benchmark")(mdp, limit, rule, 0, 128)
    returned, cost = resolve(f"{script}:result", "benchmark")(algorithm, 60)
    algorithm.stop()
    assert returned == pytest.approx(optimum, rel=0.05)
    assert cost == pytest.approx(limit, rel=0.03)


class DictKnapsack(Knapsack):
    """The same, observed as a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Dict(
            step=gym.spaces.Box(0.0, 1.0, (1,), np.float32),
            price=gym.spaces.Box(0.0, 1.0, (1,), np.float32),
        )

    def _observe(self) -> Any:
        step, price = super()._observe()
        return {"step": np.array([step]), "price": np.array([price])}


def test_observations_that_need_a_connector_say_so_and_train_with_it() -> None:
    from ray.rllib.connectors.env_to_module import FlattenObservations

    register_env("dict-knapsack", lambda context: DictKnapsack())
    config = _config().environment("dict-knapsack")
    with pytest.raises(Exception, match="FlattenObservations"):
        config.copy(copy_frozen=False).build_algo()
    connected = config.env_runners(env_to_module_connector=lambda *_, **__: FlattenObservations())
    algorithm = connected.build_algo()
    try:
        assert np.isfinite(algorithm.train()["lagrangian"]["episode_return"])
    finally:
        algorithm.stop()
