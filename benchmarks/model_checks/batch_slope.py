"""t(b) = a + c b against a real model: fitted on four batches, predicted at those between; training and inference."""

import random
import time
from collections.abc import Callable
from functools import partial

import torch

from autotuner.analyze.batch_slope import fit_line
from autotuner.metrics import quantile
from model_checks.memory import tiny_llama
from model_checks.points import Point, quietly

FITTED, PREDICTED = (1, 4, 16, 48), (2, 8, 32)
ROUNDS = 30
UNDISTURBED = 0.25  # the quartile that others on this machine disturb least


def interleaved_s(step: Callable[[int], object]) -> dict[int, float]:
    """Seconds of a step at each batch, in a new random order each round: no batch has the quiet time to itself."""
    samples: dict[int, list[float]] = {batch: [] for batch in (*FITTED, *PREDICTED)}
    shuffle = random.Random(0)
    for place in range(ROUNDS + 2):
        for batch in shuffle.sample(sorted(samples), len(samples)):
            began_s = time.perf_counter()
            step(batch)
            if place >= 2:
                samples[batch].append(time.perf_counter() - began_s)
    return {batch: quantile(values, UNDISTURBED) for batch, values in samples.items()}


def check() -> list[Point]:
    torch.set_num_threads(1)
    model = tiny_llama(4, 2)

    def infer(batch: int) -> None:
        with torch.no_grad():
            model(torch.ones(batch, 16, dtype=torch.long))

    def train(batch: int) -> None:
        prompt = torch.ones(batch, 16, dtype=torch.long)
        model(prompt, labels=prompt).loss.backward()

    points = []
    for name, step in (("inference", infer), ("training", train)):
        times_s, _, disturbed = quietly(partial(interleaved_s, step))
        line = fit_line({batch: times_s[batch] for batch in FITTED})
        assert line is not None, times_s
        share = line.overhead_share(1)
        print(f"batch slope, {name}: overhead at batch 1 {share.value:.2f} [{share.low:.2f}, {share.high:.2f}]")
        points += [
            Point("batch slope", f"{name}, batch {b}", line.time_s(b), times_s[b], "s", disturbed) for b in PREDICTED
        ]
    return points
