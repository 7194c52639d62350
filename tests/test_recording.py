"""Work is done as it is, then recorded, then repeated (a GPU being pretended)."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from mdrn_cli.recording import UNRECORDED, Recording


class Graph:
    def __init__(self):
        self.generators, self.recorded, self.replays = [], False, 0

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        assert self.recorded
        self.replays += 1


@pytest.fixture
def graphs(monkeypatch):
    made = []

    def graph():
        made.append(Graph())
        return made[-1]

    @contextmanager
    def recording(graph):
        yield
        graph.recorded = True

    stream = SimpleNamespace(wait_stream=lambda _other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    return made


def test_work_is_recorded_once_and_repeated_from_then_on(graphs):
    calls, generator = [], torch.Generator()
    recording = Recording([generator])
    for _ in range(UNRECORDED):
        recording(lambda: calls.append(1))
    assert len(calls) == UNRECORDED
    assert not graphs
    for _ in range(3):
        recording(lambda: calls.append(1))
    assert len(calls) == UNRECORDED + 1
    (graph,) = graphs
    assert graph.replays == 3
    assert graph.generators == [generator]
