"""Batches that are used again in distillation, turned, so that a teacher is run once for several steps."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from mdrn_cli.devices import layout
from mdrn_cli.model import Network

KEPT, LEAST_KEPT, BYTES = 512, 8, 2**30
"""The newest batches whose teacher's images are kept in memory: KEPT at most, as many as fit into BYTES, but at least
LEAST_KEPT."""
TURNS = 8
"""Orientations of a patch."""


@dataclass(frozen=True)
class Batch:
    """What a step learns from. It depends on step and seed alone, so that a run resumed goes on as one that was not
    interrupted.

    Attributes:
        number: which batch, counted from 0 as they are drawn.
        turn: in which of its orientations, from 0 (as it was drawn) to 7.
        new: whether it is drawn for the first time.
        seed: of its patches and noise.
    """

    number: int
    turn: int
    new: bool
    seed: int

    def generator(self, device: torch.device) -> torch.Generator:
        """Of its patches and noise."""
        return torch.Generator(device).manual_seed(self.seed)

    def turned(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in the batch's orientation."""
        x = x.transpose(2, 3) if self.turn & 1 else x
        return x.flip(self._flipped) if self._flipped else x

    def upright(self, x: Tensor) -> Tensor:
        """The inverse of `turned`."""
        x = x.flip(self._flipped) if self._flipped else x
        return x.transpose(2, 3) if self.turn & 1 else x

    @property
    def _flipped(self) -> list[int]:
        return [axis for axis, bit in ((2, 2), (3, 4)) if self.turn & bit]


def most_kept(values: int) -> int:
    """How many batches are kept, given the number of values of a batch's images."""
    return min(KEPT, max(LEAST_KEPT, BYTES // (2 * values)))


def batch_of(step: int, every: int, seed: int, kept: int = KEPT) -> Batch:
    """The batch of a step: a new one every `every` steps, in between one of the newest again.

    Args:
        step: of the run, counted from 0.
        every: how many steps there are for each new batch, at least 1.
        seed: of the run.
        kept: how many the newest are.
    """
    number, turn, new = step // every, 0, step % every == 0
    if not new:
        drawn = random.Random(f"{seed} step {step}")
        number, turn = drawn.randint(max(0, number - kept + 1), number), drawn.randrange(TURNS)
    return Batch(number, turn, new, random.Random(f"{seed} batch {number}").getrandbits(63))


class Memory:
    """A teacher that remembers its images of batches, and is run again where it does not, as after a run is resumed."""

    def __init__(self, teacher: Network) -> None:
        self.teacher = teacher
        self.images: dict[int, Tensor] = {}

    def __call__(self, noisy: Tensor, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The teacher's image of `noisy`, (N, C, H, W), and of a new batch its features."""
        if batch.new:
            image, features = self.teacher(noisy)
            self._keep(batch.number, image)
            return image, features
        if batch.number not in self.images:
            upright = batch.upright(noisy).contiguous(memory_format=layout(noisy.device))
            self._keep(batch.number, self.teacher(upright)[0])
        return batch.turned(self.images[batch.number]).to(noisy.dtype), None

    def _keep(self, number: int, image: Tensor) -> None:
        self.images[number] = image.half()
        oldest = max(self.images) - most_kept(image.numel()) + 1
        for forgotten in [kept for kept in self.images if kept < oldest]:
            del self.images[forgotten]
