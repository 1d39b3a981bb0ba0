"""One operation of the workload `ceiling`: a context that yields its step."""

from collections.abc import Callable

from autotuner.plugins import Step
from autotuner.types import Config

Run = Callable[[Config], Step]
