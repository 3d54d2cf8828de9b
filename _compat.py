"""Every private or undocumented part of PyTorch and Ray that the package uses, in one place.

A new version of either may change these without notice. Each is a function here, and has a test of
its own in ``tests/test_compat.py``: when that fails, this is the only file to mend. RLlib is made
to be subclassed; which of its hooks `prunetune.search.lagrangian` overrides is tested there, too.

Neither PyTorch nor Ray is imported before a function needs it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    BatchNorm: TypeAlias = _BatchNorm

__all__ = [
    "StorageReference",
    "change_operations",
    "container_cpus",
    "convolution_margins",
    "each_operation",
    "fused_convolution",
    "fused_convolution_and_sum",
    "is_batchnorm",
    "learner_connector",
    "learner_device",
    "listen_on_loopback",
    "machine_memory",
    "multiplies_bf16",
    "read_ray_variables_again",
    "sample_episodes",
    "seed_environments",
    "silence_ray_tokens",
    "storage_key",
    "storage_reference",
]


# --- PyTorch --------------------------------------------------------------------------------


class StorageReference(Protocol):
    """A weak reference to the memory of tensors."""

    def expired(self) -> bool:
        """Whether no tensor uses the memory any more."""


def multiplies_bf16() -> bool:
    """Whether this processor multiplies matrices of bfloat16 in hardware."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def fused_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    rectified: bool,
) -> Tensor:
    """A convolution of oneDNN that rectifies in the same pass over memory.

    Args:
        x: Images, float [n, C, H, W].
        weight: float [N, C / groups, h, w].
        bias: float [N], or ``None``.
        stride: Down and across.
        padding: Zeros on both sides, down and across.
        dilation: Down and across.
        groups: As `torch.nn.functional.conv2d` has them.
        rectified: Whether negative outputs become zero.
    """
    import torch

    attribute = "relu" if rectified else "none"
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, attribute, [], ""
    )
    return output


def fused_convolution_and_sum(
    x: Tensor,
    summand: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    rectified: bool,
) -> Tensor:
    """The same with a summand of the output's shape, added before it rectifies."""
    import torch

    attribute = "relu" if rectified else None
    output: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        x,
        summand,
        weight,
        bias,
        padding,
        stride,
        dilation,
        groups,
        "add",
        1.0,
        attribute,
        [],
        None,
    )
    return output


def is_batchnorm(module: nn.Module) -> TypeGuard[BatchNorm]:
    """Whether a layer is a BatchNorm of any number of dimensions, or a subclass of one."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def convolution_margins(layer: nn.Conv2d) -> tuple[int, int, int, int]:
    """Pixels that a convolution adds left, right, above and below, whatever its padding is."""
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    return left, right, top, bottom


def storage_key(tensor: Tensor) -> int:
    """A number that tensors share if and only if they share memory, while one of them lives."""
    return int(tensor.untyped_storage()._cdata)


def storage_reference(tensor: Tensor) -> StorageReference:
    """A weak reference to the memory of a tensor."""
    from torch.multiprocessing.reductions import StorageWeakRef

    reference: StorageReference = StorageWeakRef(tensor.untyped_storage())
    return reference


def each_operation(
    before: Callable[[], None], after: Callable[[Sequence[Any]], None]
) -> AbstractContextManager[Any]:
    """Within this context, calls ``before`` and ``after`` every operation of PyTorch.

    Args:
        before: Is called first.
        after: Receives the tensors, and whatever else, that the operation returned, as a flat list.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watcher(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            before()
            result = func(*args, **(kwargs or {}))
            after(tree_leaves(result))
            return result

    return Watcher()


def change_operations(
    change: Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Any],
) -> AbstractContextManager[Any]:
    """Within this context, every operation of PyTorch returns what ``change`` makes of its result.

    Args:
        change: Receives the operation, an overload of ``torch.ops``, its arguments and keywords,
            and its result. Operations in it are not changed.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class Changer(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            return change(func, args, kwargs, func(*args, **kwargs))

    return Changer()


# --- Ray ------------------------------------------------------------------------------------


def container_cpus() -> int:
    """CPUs of this machine, or those that a container may use."""
    from ray._private.utils import get_num_cpus

    return int(get_num_cpus())


def machine_memory() -> int:
    """Bytes of memory of this machine, or those that a container may use."""
    from ray._common.utils import get_system_memory

    return int(get_system_memory())


def silence_ray_tokens() -> None:
    """Keep Ray from logging that it made a token, which it does before it knows its log level."""
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)


def listen_on_loopback(only: bool) -> None:
    """Let what Ray starts from here listen on this machine's loopback only, or on all interfaces.

    Ray has a switch for it, which is on where it makes no clusters: on macOS and Windows. It reads
    it when it is imported, and the processes that it starts read it in their environment.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0" if only else "1"
    ray_constants.ENABLE_RAY_CLUSTER = not only


def read_ray_variables_again() -> None:
    """Let Ray read its environment variables, as it did when it was imported."""
    import ray

    ray._raylet.Config.initialize("")


def seed_environments(runner: Any, seed: int) -> None:
    """Give an env runner of RLlib the seed that its environments are reset with."""
    runner._seed = seed


def sample_episodes(runners: Any, steps: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
    """Let all env runners of RLlib sample.

    Args:
        runners: The algorithm's ``env_runner_group``.
        steps: Steps of environments in all, at least.
        timeout: Seconds after which runners that have not answered are left out.

    Returns:
        Episodes, and each runner's metrics.
    """
    from ray.rllib.execution.rollout_ops import synchronous_parallel_sample

    episodes, metrics = synchronous_parallel_sample(
        worker_set=runners,
        max_env_steps=steps,
        sample_timeout_s=timeout,
        _uses_new_env_runners=True,
        _return_metrics=True,
    )
    return list(episodes), list(metrics)


def learner_connector(learner: Any) -> Any:
    """The pipeline that turns episodes into the batch of one of RLlib's learners."""
    return learner._learner_connector


def learner_device(learner: Any) -> Any:
    """The device of one of RLlib's learners."""
    return learner._device
