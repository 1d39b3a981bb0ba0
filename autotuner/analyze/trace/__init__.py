"""What a Chrome trace of a few steps says: where the time went on the device and on the host.

Pure functions of the events that torch.profiler (Kineto) exports; nothing here knows torch.
"""

from autotuner.analyze.trace.device import DeviceTime
from autotuner.analyze.trace.events import STEP, STEPS, Event, Kind, parse
from autotuner.analyze.trace.host import HostTime
from autotuner.analyze.trace.lanes import Bar, Lane
from autotuner.analyze.trace.rows import Row
from autotuner.analyze.trace.summary import TraceSummary, summarise

__all__ = [
    "Bar",
    "DeviceTime",
    "Event",
    "HostTime",
    "Kind",
    "Lane",
    "Row",
    "STEP",
    "STEPS",
    "TraceSummary",
    "parse",
    "summarise",
]
