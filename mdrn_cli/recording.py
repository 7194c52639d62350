"""Work on a GPU that is the same every time, recorded once and repeated from then on (CUDA graphs): a training step is
thousands of kernels, each of which takes less time to run than Python does to launch it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

UNRECORDED = 2
"""Calls before the recording: what they set up (memory, libraries, the optimizer's state) cannot be recorded."""


class Recording:
    """Calls `work`, which takes all that changes from tensors that stay where they are, and leaves its results so.

    Args:
        work: everything in it happens on one CUDA device, which it never waits for.
        generators: of random numbers, that it draws from.
    """

    def __init__(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> None:
        self.work, self.generators = work, generators
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """The work, once."""
        if self.graph is None and self.calls < UNRECORDED:
            self.calls += 1
            self._beside()
            return
        if self.graph is None:
            self.graph = self._recorded()
        self.graph.replay()

    def _beside(self) -> None:
        """As a recording does it: on a stream of its own."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.work()
        torch.cuda.current_stream().wait_stream(stream)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self.work()
        return graph
