"""Work on a GPU that is the same every time, recorded once and then replayed (CUDA graphs): a training step is
thousands of kernels, each of which takes less time to run than Python takes to launch it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

UNRECORDED = 2
"""Calls before the recording, as what they set up (memory, libraries, optimizer state) cannot be recorded."""


class Recording:
    """Does work that takes all that changes from tensors that stay where they are, and leaves its results so.

    Args:
        generators: of random numbers, that it draws from.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        """The work, once.

        Args:
            work: the same every time; everything in it happens on one CUDA device, which it never waits for. It is not
                kept: what it belongs to may keep the recording, and would live, with its memory on the device, until
                Python looks for such circles.
        """
        if self.graph is None and self.calls < UNRECORDED:
            self.calls += 1
            self._beside(work)
            return
        if self.graph is None:
            self.graph = self._recorded(work)
        self.graph.replay()

    def _beside(self, work: Callable[[], None]) -> None:
        """As a recording does it: on a stream of its own."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)

    def _recorded(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            work()
        return graph
