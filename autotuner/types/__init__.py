"""The values that cross a boundary: frozen, comparable, picklable, free of behaviour.

Quantities are in SI base units and say so in their name (`_s`, `_bytes`, `_w`, `_j`, `_per_s`, `_ratio`).
"""

from autotuner.types.bench import BenchDecision, BenchKey, BenchReport, BenchRun, BenchTrend
from autotuner.types.canary import CanaryRules, CanaryVerdict, Guard, Ruling, Window
from autotuner.types.config import Config, Metrics, Value, config_key
from autotuner.types.diagnosis import Binding, Ceilings, Diagnosis, Estimate
from autotuner.types.export import Check, Draft, Recommendation
from autotuner.types.outcome import Failure, FailureKind, Measurement, MeasurementProtocol, Outcome
from autotuner.types.service import Deployment, Phase, ServiceState
from autotuner.types.trial import Origin, Trial, Verdict
from autotuner.types.verification import Contribution, Decision, Equivalence, Pair, Tier, Verification

__all__ = [
    "BenchDecision",
    "BenchKey",
    "BenchReport",
    "BenchRun",
    "BenchTrend",
    "Binding",
    "CanaryRules",
    "CanaryVerdict",
    "Ceilings",
    "Check",
    "Config",
    "Contribution",
    "Decision",
    "Deployment",
    "Diagnosis",
    "Draft",
    "Equivalence",
    "Estimate",
    "Failure",
    "FailureKind",
    "Guard",
    "Measurement",
    "MeasurementProtocol",
    "Metrics",
    "Origin",
    "Outcome",
    "Pair",
    "Phase",
    "Recommendation",
    "Ruling",
    "ServiceState",
    "Tier",
    "Trial",
    "Value",
    "Verdict",
    "Verification",
    "Window",
    "config_key",
]
