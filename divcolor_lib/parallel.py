"""Several processes that train one network: `torchrun` starts them, and together they take the step that one would take.

Every process draws the same batches, works on its own part of each, and averages its gradients with the others
(`DistributedDataParallel`). Batch norm is the one layer that looks across a batch, so here its statistics are taken over
all parts. Started without `torchrun`, a program is a team of one, for which every function here changes nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .errors import ConfigError


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0; process 0 writes the files."""
    return dist.get_rank() if processes() > 1 else 0


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the team that `torchrun` announces in the environment, and yield the device of this process.

    Graphics cards talk by NCCL, processors by gloo. Processes on one machine take one card each.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def part(batch: Tensor) -> Tensor:
    """Return this process's part of a batch: equal parts, in the order of the processes.

    Raises:
        ConfigError: the batch cannot be cut into equal parts.
    """
    size, rest = divmod(len(batch), processes())
    if rest or size == 0:
        raise ConfigError(
            f"a batch of {len(batch)} cannot be shared by {processes()} processes", "batch", "Use a multiple of the number of processes."
        )
    return batch[rank() * size : (rank() + 1) * size]


def mean(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return the mean over the processes of each value; a NaN in one of them reaches all."""
    if processes() == 1:
        return dict(values)
    kept = torch.tensor(list(values.values()), dtype=torch.float32, device=device)
    dist.all_reduce(kept)
    return dict(zip(values, (kept / processes()).tolist()))


def first(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return the values of process 0, so that all decide alike."""
    if processes() == 1:
        return dict(values)
    kept = torch.tensor(list(values.values()), dtype=torch.float32, device=device)
    dist.broadcast(kept, 0)
    return dict(zip(values, kept.tolist()))


def gathered(state: Tensor, device: torch.device) -> list[Tensor]:
    """Return the state of every process, in their order, on the CPU; all must have one shape and type."""
    if processes() == 1:
        return [state]
    own = state.to(device)
    found = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(found, own)
    return [other.cpu() for other in found]


def wait() -> None:
    """Wait until every process has come this far."""
    if processes() > 1:
        dist.barrier()


def averaging(module: nn.Module) -> nn.Module:
    """Return `module` such that its backward averages the gradients of all processes; they start from the weights of process 0."""
    if processes() == 1:
        return module
    device = next(module.parameters()).device
    return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False)


def share_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every `BatchNorm2d` in `module` by one that looks at all processes' parts of a batch; names and numbers stay."""
    if processes() == 1:
        return module
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SharedBatchNorm2d):
            shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            module.add_module(name, shared.to(child.weight.device).train(child.training))
        else:
            share_batch_norm(child)
    return module


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose mean and variance are those of the whole batch, of which each process holds an equal part.

    `nn.SyncBatchNorm` does the same on graphics cards only; this one also runs, and is tested, on processors.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `(B, C, H, W)`; alone, or in eval mode, as `nn.BatchNorm2d` does."""
        if not self.training or processes() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            center = _mean_over_all(values.mean((0, 2, 3)))
            offsets = values - center[:, None, None]
            spread = _mean_over_all(offsets.square().mean((0, 2, 3)))
            self._remember(center.detach(), spread.detach(), processes() * x.numel() // x.shape[1])
            scale = self.weight * (spread + self.eps).rsqrt()
            return (offsets * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, center: Tensor, spread: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(center, self.momentum)
        self.running_var.lerp_(spread * (count / max(1, count - 1)), self.momentum)


def _mean_over_all(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total / processes()


class _Sum(torch.autograd.Function):
    """The sum over processes. What changes it changes every process's loss, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
