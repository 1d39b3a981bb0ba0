"""What this machine can do at most, and what is wrong with it."""

from autotuner.doctor.ceilings import ceilings_for, measure_ceilings
from autotuner.doctor.examination import Examination, examine, find_faults
from autotuner.doctor.finding import Finding, Level

__all__ = ["Examination", "Finding", "Level", "ceilings_for", "examine", "find_faults", "measure_ceilings"]
