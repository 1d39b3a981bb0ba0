"""How long a step waits for communication."""

import time
from typing import Any


class Stopwatch:
    """Adds up spells of one step: by the clock on a CPU, by events of the stream that computes on a GPU."""

    def __init__(self, device: Any) -> None:
        self._on_gpu = device.type == "cuda"
        self._begun: Any = None
        self._spells: list[tuple[Any, Any]] = []
        self._last: list[tuple[Any, Any]] = []

    def begin(self) -> None:
        """From here on, nothing but communication is left to do."""
        self._begun = self._now()

    def end(self) -> None:
        """It is done; nothing happens if none began."""
        if self._begun is not None:
            self._spells.append((self._begun, self._now()))
        self._begun = None

    def end_step(self) -> None:
        """What was added up is the last step's."""
        self._last, self._spells = self._spells, []

    def last_step_s(self) -> float:
        """Seconds of the last step's spells. On a GPU, waits for the last of them."""
        if not self._on_gpu:
            return float(sum(end - begun for begun, end in self._last))
        for _, end in self._last:
            end.synchronize()
        return float(sum(begun.elapsed_time(end) for begun, end in self._last)) / 1e3

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
