"""Networks that say 1 of one kind of picture, -1 of others: what train_drawn.py and train_alike.py have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from noisy_crops import of_each
from numpy.typing import NDArray
from train_noise_estimator import Network, columns, fit, mean_of

from mdrn_cli.blocks import answer

NETWORKS, HIDDEN, EPOCHS = 5, 32, 60
EXCESS = 3.0
"""What taking another picture for one of the kind weighs, whose noise is left then, beside the other error."""

Rows = Callable[[Path, tuple[int, int]], list[tuple[NDArray[np.float32], float, str]]]
"""(photograph, seed) -> features, 1 or -1, and a name of what they are of."""


def learned(train: Path, rows: Rows) -> Network:
    """A network that has learned from a folder tree of photographs."""
    features, targets = columns([row[:2] for row in of_each(train, rows, 0)])
    return mean_of(
        [fit(features, targets, epochs=EPOCHS, hidden=HIDDEN, excess=EXCESS, seed=seed) for seed in range(NETWORKS)]
    )


def report(val: Path, rows: Rows, network: Network, sure: float, kind: str) -> None:
    """Print what share of which rows of validation photographs is taken for the kind."""
    answers: dict[str, list[float]] = {}
    for row, _, name in of_each(val, rows, 1):
        answers.setdefault(name, []).append(answer(row, network))
    for name, found in answers.items():
        print(f"{name}: {np.mean(np.array(found) > sure):.2%} of {len(found)} taken to be {kind}", flush=True)
