"""Many cycles with everything that can go wrong; ten thousand are `benchmarks/daemon_months.py`."""

import sys
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from daemon_months import measure, months

from autotuner.types import Phase

CYCLES, PARTS = 72, 6


@pytest.mark.slow
def test_over_many_cycles_nothing_grows_and_every_cycle_ends(monkeypatch):
    """What must hold after every turn, `Months.look` asserts."""
    monkeypatch.setattr("autotuner.daemon.keeper._KEPT", 30)  # the journal is full early
    with months() as simulated:
        samples = list(measure(simulated, CYCLES, PARTS))
        happened = simulated.happened
        kinds = Counter(entry.kind for entry in simulated.journal.entries())
    assert max(kinds.values()) <= 30 + 2, "those that were written since the last cycle ended"
    full = samples[2]  # of what is rare, as alerts are, there are as many as are kept only after some cycles
    assert samples[-1].entries <= 1.3 * full.entries
    assert samples[-1].file_bytes <= 1.2 * full.file_bytes
    assert samples[-1].rss_bytes <= full.rss_bytes + 8 * 2**20
    cpu = [one.cpu_s_per_cycle for one in samples]
    assert median(cpu[3:]) <= 2 * median(cpu[:3])
    for phase in Phase:
        assert happened[phase] or phase in (Phase.ALARM, Phase.APPROVAL), happened
    for what in ("a hook failed", "the record was locked", "a window without a number", "somebody said something"):
        assert happened[what], what
    assert simulated.lives > 2
