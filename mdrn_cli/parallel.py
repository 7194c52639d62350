"""Data-parallel training: the processes that `torchrun` started, joined by torch.distributed (NCCL on GPUs, gloo on
CPUs). Without `torchrun` there is one process, and nothing here does anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from mdrn_cli.errors import DeviceError, MdrnError, SharedError, UsageError, told_by

if TYPE_CHECKING:
    from torch import Tensor

# Others wait while the first process reads photographs or validates, which may take long.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Group:
    """This process among those of a run.

    Attributes:
        rank: 0 for the first, which alone writes and prints.
        size: processes in all.
        local_rank, local_size: the same on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of a batch of `count`.

        Raises:
            UsageError: the batch cannot be divided equally.
        """
        each, rest = divmod(count, self.size)
        if rest:
            raise UsageError(
                f"a batch of {count} patches cannot be divided equally among {self.size} processes",
                f"give a --batch-size that is a multiple of {self.size}",
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def device(self, name: str) -> str:
        """The device of this process: of several on a machine, each has a GPU of its own.

        Raises:
            UsageError: a single GPU is named for several processes.
            DeviceError: there are fewer GPUs than processes.
        """
        import torch

        if self.size > 1 and name == "auto":  # by name, so that one that cannot compute ends the run, and is not left
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if self.local_size == 1:
            return name
        if name.startswith("cuda:"):
            raise UsageError(f"{self.local_size} processes cannot all use {name}", "give --device cuda")
        if name != "cuda":
            return name
        if torch.cuda.device_count() < self.local_size:
            raise DeviceError(
                f"{self.local_size} processes but {torch.cuda.device_count()} GPUs here",
                "start as many processes as there are GPUs, or give --device cpu",
            )
        return f"cuda:{self.local_rank}"

    @contextmanager
    def connected(self, device: str) -> Iterator[None]:
        """Join the processes, for work on a device such as "cpu" or "cuda:1", which becomes the current one. Once in a
        process: torchrun's store would tell those who join again where the others were the first time."""
        import torch

        on_gpu = device.startswith("cuda")
        if on_gpu and (self.size > 1 or ":" in device):
            torch.cuda.set_device(torch.device(device).index or 0)
        if self.size == 1:
            yield
            return
        import torch.distributed as dist

        # It takes the group there is at its import for a default, and an optimizer imports it: the group would then
        # outlive its end, and its threads now and then the interpreter, which aborts the process.
        import torch.distributed.nn.functional

        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
        # Not left after an error: the others may be in the midst of an exchange, and torchrun ends them.
        yield
        dist.destroy_process_group()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes; one exchange for all of them."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _telling_of_others():
            dist.all_reduce(flat)
        parts = torch.split(flat.div_(self.size), [tensor.numel() for tensor in tensors])
        means = [part.view(tensor.shape) for tensor, part in zip(tensors, parts, strict=True)]
        torch._foreach_copy_(list(tensors), means)

    def agree(self, elapsed: float, stop: bool) -> tuple[float, bool]:
        """Give all processes the same: the first one's clock, in seconds, and whether any is asked to stop.

        Exchanged between CPUs, so that nobody waits for a GPU.
        """
        if self.size == 1:
            return elapsed, stop
        import torch
        import torch.distributed as dist

        ours = torch.tensor([elapsed if self.first else 0.0, float(stop)], dtype=torch.float64)
        with _telling_of_others():
            dist.all_reduce(ours)
        return float(ours[0]), bool(ours[1] > 0)

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.agree(0.0, False)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Work that the first process of each machine does before the others do it."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Let processes wait for one another after the work, also if it ends in a SharedError: once one process is
        gone, torchrun kills the rest, whatever they are writing. Any other error ends this process at once: the others
        are still at work, and would take this one's barrier for an exchange of theirs."""
        try:
            yield
        except SharedError:
            self.barrier()
            raise
        self.barrier()


@contextmanager
def _telling_of_others() -> Iterator[None]:
    """Explain the failure of an exchange: another process has ended, or is out of reach."""
    try:
        yield
    except RuntimeError as error:
        raise MdrnError(
            f"the other processes of the run cannot be reached ({told_by(error)})",
            "one that has ended tells why itself",
        ) from error


def launched() -> Group:
    """This process's place, from the variables `torchrun` sets."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if "MASTER_ADDR" not in os.environ or any(not os.environ.get(name, "").isdecimal() for name in names):
        return Group()
    return Group(*(int(os.environ[name]) for name in names))
