"""What a study tells telemetry: its events as metrics and logs, its workers' times as spans, its GPU as `hw.*`.

Names are those of OpenTelemetry's conventions for hardware (in development) where there is one, else `autotune.*`;
docs/telemetry.md lists them.
"""

from autotuner.observing.events import observed
from autotuner.observing.workers import ObservedPool

__all__ = ["ObservedPool", "observed"]
