"""What is private in PyTorch and Ray: it is used in one file, it is there, and it does as we think.

When a test here fails after an update, mend the function of the same name in ``_compat.py``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetune import _compat
from torch import nn
from torch.nn import functional

_ROOT = Path(__file__).resolve().parents[1]
_OUTSIDE = ("tests", "docs", "benchmarks", "examples", "build")
# As modules of either are called where they are imported.
_TOPS = ("torch", "nn", "fx", "functional", "ray", "tune")
_STRIDE, _DILATION = (2, 1), (1, 2)


def _private_names(tree: ast.Module) -> Iterator[str]:
    """Names below ``torch`` and ``ray`` of which any part begins with one underscore."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [text for text in [ast.unparse(node)] if re.fullmatch(r"[\w.]+", text)]
        else:
            continue
        for name in names:
            top, *parts = name.split(".")
            if top in _TOPS and any(
                part.startswith("_") and not part.startswith("__") for part in parts
            ):
                yield name


def test_private_names_of_torch_and_ray_are_in_one_file() -> None:
    for path in sorted(_ROOT.rglob("*.py")):
        inside = path.relative_to(_ROOT)
        # A virtual environment inside the checkout, such as the one of `.ci/run`, is not ours.
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or inside.parts[0] in _OUTSIDE or inside.name == "_compat.py":
            continue
        found = list(_private_names(ast.parse(path.read_text())))
        assert not found, f"{inside} uses {found}: put that into _compat.py, with a test"


def test_every_function_has_a_test() -> None:
    tests = Path(__file__).read_text()
    for name in _compat.__all__:
        if inspect.isfunction(getattr(_compat, name)):
            assert f"_compat.{name}(" in tests, f"{name} has no test here"


def test_nothing_is_imported_before_it_is_needed() -> None:
    script = (
        "import sys, prunetune._compat; print([n for n in ('torch', 'ray') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# --- PyTorch --------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux lists what it can do")
def test_bf16_is_multiplied_where_the_processor_says_so() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    assert _compat.multiplies_bf16() == ("avx512_bf16" in flags or "amx_tile" in flags)


def _convolution() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 4, 9, 11, generator=generator)
    weight = torch.randn(6, 2, 3, 3, generator=generator)
    bias = torch.randn(6, generator=generator)
    how = {"stride": _STRIDE, "padding": (1, 2), "dilation": _DILATION, "groups": 2}
    return images, weight, bias, how


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN")
@pytest.mark.parametrize("rectified", [True, False])
def test_fused_convolution(rectified: bool) -> None:
    images, weight, bias, how = _convolution()
    expected = functional.conv2d(images, weight, bias, **how)
    found = _compat.fused_convolution(images, weight, bias, **how, rectified=rectified)
    torch.testing.assert_close(found, expected.relu() if rectified else expected)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN")
@pytest.mark.parametrize("rectified", [True, False])
def test_fused_convolution_and_sum(rectified: bool) -> None:
    images, weight, bias, how = _convolution()
    expected = functional.conv2d(images, weight, bias, **how)
    summand = torch.randn_like(expected)
    found = _compat.fused_convolution_and_sum(
        images, summand, weight, bias, **how, rectified=rectified
    )
    expected = expected + summand
    torch.testing.assert_close(found, expected.relu() if rectified else expected)


def test_is_batchnorm() -> None:
    class Own(nn.BatchNorm2d):
        pass

    found = [nn.BatchNorm1d(1), nn.BatchNorm2d(1), nn.BatchNorm3d(1), nn.SyncBatchNorm(1), Own(1)]
    assert all(_compat.is_batchnorm(module) for module in found)
    others = [nn.InstanceNorm2d(1), nn.GroupNorm(1, 1), nn.LayerNorm(1), nn.Identity()]
    assert not any(_compat.is_batchnorm(module) for module in others)


@pytest.mark.parametrize(
    "padding", ["same", "valid", 1, (2, 0)], ids=lambda padding: str(padding).replace(" ", "")
)
def test_convolution_margins(padding: Any) -> None:
    layer = nn.Conv2d(2, 3, (4, 3), padding=padding, dilation=_DILATION)
    images = torch.randn(1, 2, 8, 8)
    padded = functional.pad(images, _compat.convolution_margins(layer))
    found = functional.conv2d(padded, layer.weight, layer.bias, dilation=_DILATION)
    torch.testing.assert_close(found, layer(images))


def test_storage_key() -> None:
    one, other = torch.zeros(6), torch.zeros(6)
    assert _compat.storage_key(one) == _compat.storage_key(one.view(2, 3)[1:])
    assert _compat.storage_key(one) != _compat.storage_key(other)


def test_storage_reference() -> None:
    tensor = torch.zeros(4)
    view, reference = tensor[1:], _compat.storage_reference(tensor)
    del tensor
    assert not reference.expired(), "a view keeps it"
    del view
    assert reference.expired()


def test_each_operation() -> None:
    heard: list[str] = []

    def after(results: Any) -> None:
        heard.append(str([tuple(result.shape) for result in results]))

    numbers = torch.arange(6.0)
    with torch.no_grad(), _compat.each_operation(lambda: heard.append("before"), after):
        numbers.reshape(2, 3).max(dim=1)
    assert heard == ["before", "[(2, 3)]", "before", "[(2,), (2,)]"]
    numbers + 1
    assert len(heard) == 4, "it ends with the context"


def test_change_operations() -> None:
    asked: list[tuple[str, tuple[Any, ...], Any]] = []

    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        asked.append((func._schema.name, args, result))
        return not result if isinstance(result, bool) else result

    numbers = torch.arange(6.0)
    with torch.no_grad(), _compat.change_operations(change):
        view = numbers.view(2, 3)
        answer = bool(numbers[0] > 1)
    assert answer, "what the operation returned was changed"
    assert [name for name, _, _ in asked[:1]] == ["aten::view"]
    assert asked[0][1][0] is numbers and asked[0][2] is view, "tensors are the same objects"
    assert asked[-1][0] == "aten::_local_scalar_dense" and asked[-1][2] is False
    assert torch.Tag.pointwise in torch.ops.aten.add.Tensor.tags


def test_modules_keep_their_tensors_and_children_in_dictionaries() -> None:
    # Copies of layers that share all but a few tensors put others in their place.
    layer = nn.Sequential(nn.BatchNorm2d(2))
    assert layer._modules == {"0": layer[0]}
    assert set(layer[0]._parameters) == {"weight", "bias"}
    assert set(layer[0]._buffers) == {"running_mean", "running_var", "num_batches_tracked"}


# --- Ray ------------------------------------------------------------------------------------


def test_container_cpus() -> None:
    assert 1 <= _compat.container_cpus() <= (os.cpu_count() or 1)


def test_machine_memory() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**26 < _compat.machine_memory() <= physical


def test_silence_ray_tokens() -> None:
    import ray._private.authentication as package

    _compat.silence_ray_tokens()
    for module in pkgutil.iter_modules(package.__path__):
        logger = logging.getLogger(f"{package.__name__}.{module.name}")
        assert not logger.isEnabledFor(logging.WARNING), f"{logger.name} is heard"


def test_read_ray_variables_again() -> None:
    # Any variable that Python can ask for will do.
    script = (
        "import os, ray; from prunetune import _compat\n"
        "before = ray._raylet.Config.object_timeout_milliseconds()\n"
        "os.environ['RAY_object_timeout_milliseconds'] = str(before + 7)\n"
        "_compat.read_ray_variables_again()\n"
        "print(ray._raylet.Config.object_timeout_milliseconds() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "7", done.stderr


@pytest.mark.ray
def test_episodes_of_seeded_environments(local_ray: None) -> None:
    from ray.rllib.algorithms.ppo import PPOConfig

    config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0)
    config.env_runners(batch_mode="complete_episodes").rl_module(
        model_config={"fcnet_hiddens": [4]}
    )
    algorithm = config.build_algo()
    try:
        began = []
        for seed in (1, 1, 2):
            _compat.seed_environments(algorithm.env_runner, seed)
            algorithm.env_runner._needs_initial_reset = True
            episodes, metrics = _compat.sample_episodes(algorithm.env_runner_group, 30, None)
            assert sum(len(episode) for episode in episodes) >= 30 and metrics
            began.append(episodes[0].get_observations(0).tolist())
        assert began[0] == began[1] != began[2]

        def look(learner: Any) -> tuple[str, str]:
            pipeline = _compat.learner_connector(learner)
            return type(pipeline).__name__, str(_compat.learner_device(learner))

        (found,) = [each.get() for each in algorithm.learner_group.foreach_learner(look)]
        assert found == ("LearnerConnectorPipeline", "cpu")
    finally:
        algorithm.stop()


# Where RLlib expects to be extended it has protected names, which a subclass only can use.
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("core.learner.torch.torch_learner:TorchLearner", "_set_optimizer_lr"),
        ("core.learner.torch.torch_learner:TorchLearner", "_get_optimizer_lr"),
        ("core.learner.learner:Learner", "_named_optimizers"),
        ("core.learner.learner:Learner", "_check_component"),
        ("algorithms.algorithm_config:AlgorithmConfig", "_model_config_auto_includes"),
        ("core.models.catalog:Catalog", "_model_config_dict"),
        ("env.single_agent_env_runner:SingleAgentEnvRunner", "_done_episodes_for_metrics"),
        ("env.single_agent_env_runner:SingleAgentEnvRunner", "_log_env_steps"),
        ("env.single_agent_env_runner:SingleAgentEnvRunner", "_increase_sampled_metrics"),
        ("env.single_agent_env_runner:SingleAgentEnvRunner", "_metrics_num_env_steps_sampled"),
    ],
)
def test_what_we_extend_of_rllib_is_there(owner: str, name: str) -> None:
    module, _, of = owner.partition(":")
    found = getattr(importlib.import_module(f"ray.rllib.{module}"), of)
    assert name in inspect.getsource(found), (
        f"{of} of this version of Ray has no {name}, which search/lagrangian or "
        "search/agents/together/runner.py overrides or uses"
    )


_LISTENERS = """
import psutil
from prunetune import _compat
from prunetune.cluster import ClusterSpec, connect

# As connect does, but before anything of it.
_compat.listen_on_loopback(True)
assert connect(ClusterSpec()).local
for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    for connection in process.net_connections(kind="inet"):
        if connection.status == "LISTEN":
            print(process.name(), connection.laddr.ip.removeprefix("::ffff:"))
"""


@pytest.mark.slow
def test_listen_on_loopback() -> None:
    """A Ray that nobody asked to be a cluster can be reached from this machine only."""
    pytest.importorskip("psutil")
    ended = subprocess.run(
        [sys.executable, "-c", _LISTENERS], capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    found = [line.rpartition(" ") for line in ended.stdout.splitlines()]
    assert len(found) >= 4 and {address for _, _, address in found} == {"127.0.0.1"}
