"""The study as its file describes it, checked and frozen.

Only `autotuner.spec` turns text into these; everything else can trust them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from autotuner.metrics import SCORE, goal, value_of
from autotuner.plugins import Executor, Probe, Trait, Workload
from autotuner.spec.expressions import Expression, Limit
from autotuner.spec.parameters import Name, Parameter, Rule, Section, Suggestion
from autotuner.types import Config, MeasurementProtocol, Value


class Objective(Section):
    """One thing to optimise; give exactly one of `maximize` and `minimize`."""

    maximize: str | None = None
    minimize: str | None = None
    weight: float = Field(1.0, gt=0, description="Of several: with 2, one percent of it is worth two of the others'.")

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.maximize or self.minimize or ""

    @property
    def sign(self) -> int:
        """1 when larger is better, else -1."""
        return 1 if self.maximize else -1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.maximize is None) == (self.minimize is None):
            raise ValueError("give either maximize or minimize")
        goal(self.metric)
        return self


@dataclass(frozen=True, slots=True)
class Goal:
    """What the search and the verification compare: the only objective, or the score of several.

    The score is the product of the objectives' values, each in its direction and to the power of its weight, of which
    the largest counts as 1. So a ratio of two scores is the product of what they gained, whatever the units; and what
    changes the main objective alone changes the score as much. It is a linear preference on a log scale.
    """

    objectives: tuple[Objective, ...]

    @property
    def metric(self) -> str:
        """Name of the only objective, or `score`."""
        return self.objectives[0].metric if len(self.objectives) == 1 else SCORE

    @property
    def sign(self) -> int:
        """1 when larger is better, else -1."""
        return self.objectives[0].sign if len(self.objectives) == 1 else 1

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what is measured for it."""
        return tuple(objective.metric for objective in self.objectives)

    @property
    def powers(self) -> Mapping[str, float]:
        """`{metric: weight over the largest weight}`."""
        largest = max(one.weight for one in self.objectives)
        return {one.metric: one.weight / largest for one in self.objectives}

    @property
    def directions(self) -> Mapping[str, bool]:
        """`{metric: whether more of it is better}`, of the score too."""
        return {self.metric: self.sign > 0} | {one.metric: one.sign > 0 for one in self.objectives}

    @property
    def text(self) -> str:
        """`maximize throughput_tokens_per_s, minimize latency_p95_s (weight 2)`."""
        parts = []
        for one in self.objectives:
            weight = f" (weight {one.weight:g})" if one.weight != 1 else ""
            parts.append(f"{'maximize' if one.sign > 0 else 'minimize'} {one.metric}{weight}")
        return ", ".join(parts)

    def value(self, samples: Mapping[str, Sequence[float]]) -> float:
        """From a measurement's samples; NaN where an objective was not measured, or has no logarithm."""
        if len(self.objectives) == 1:
            return value_of(self.metric, samples)
        values = {name: value_of(name, samples) for name in self.metrics}
        if not all(math.isfinite(value) and value > 0 for value in values.values()):
            return math.nan
        signs = {one.metric: one.sign for one in self.objectives}
        return math.exp(math.fsum(self.powers[name] * signs[name] * math.log(v) for name, v in values.items()))


class EquivalenceRules(Section):
    """How far the outputs of a recommended configuration may be from the baseline's."""

    guard: bool = Field(True, description="false: do not compare outputs; the report says so.")
    max_kl_nats: float = Field(1e-3, gt=0, description="Mean KL divergence of the next-token distribution.")
    min_top1_agreement_ratio: float = Field(0.99, ge=0, le=1, description="Near-ties left out.")
    min_top5_agreement_ratio: float = Field(0.98, ge=0, le=1)
    max_error_ratio: float = Field(0.05, gt=0, description="Relative L2 error of an output vector, tier precision.")
    max_loss_error_ratio: float = Field(1e-3, gt=0, description="Training: of the loss at any step, tier rounding.")
    max_loss_band_ratio: float = Field(
        1.0, gt=0, description="Training: deviation of the loss curve, relative to that between seeds; tier precision."
    )
    max_gradient_norm_error_ratio: float = Field(0.02, gt=0, description="Training: of the gradients' norm.")


class Budget(Section):
    """What the study may cost. Whatever is used up first ends the search; the verification has its own share."""

    trials: int = Field(30, ge=1, le=100_000)
    minutes: float | None = Field(None, gt=0)
    verify_share: float = Field(0.35, ge=0.05, le=0.9, description="Share of the minutes kept for the verification.")
    finalists: int = Field(3, ge=1, le=10, description="How many candidates are raced.")
    max_pairs: int = Field(30, ge=6, le=1000, description="Most interleaved pairs of the winner and the baseline.")


class StudySpec(Section):
    """A whole study file."""

    name: Name
    workload: SerializeAsAny[Workload]
    executor: SerializeAsAny[Executor]
    probes: tuple[SerializeAsAny[Probe], ...] = ()
    parameters: Mapping[Name, Parameter] = Field(min_length=1)
    rules: tuple[Rule, ...] = ()
    try_first: tuple[Suggestion, ...] = Field((), max_length=16, description="What to look at after the baseline.")
    warm_start: bool = Field(True, description="Also try first what won in earlier studies on like hardware.")
    objectives: tuple[Objective, ...] = Field(min_length=1, max_length=8)
    limits: tuple[Limit, ...] = ()
    equivalence: EquivalenceRules = EquivalenceRules()
    budget: Budget = Budget()
    protocol: MeasurementProtocol = MeasurementProtocol()
    strategy: Literal["gp", "tpe", "random", "grid"] = "gp"
    seed: int = Field(0, ge=0)
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where it runs; filled in when the file is loaded.")
    cpu_cores: int = Field(1, ge=1, description="Cores that this process may use; filled in when the file is loaded.")
    devices: int = Field(1, ge=1, description="GPUs, or cores on a CPU; filled in when the file is loaded.")
    source: str = Field("", description="The file it came from; filled in when it is loaded.")

    @property
    def objective(self) -> Goal:
        """What trials are ranked by, and what the verification compares."""
        return Goal(self.objectives)

    @cached_property
    def baseline(self) -> Config:
        """Every parameter at its default."""
        return {name: parameter.default for name, parameter in self.parameters.items()}

    def trait(self, name: str) -> Trait:
        """What is known of a parameter: the workload's knowledge, overridden by the file."""
        known, own = self.workload.trait(name), self.parameters[name]
        return Trait(
            live=known.live if own.live is None else own.live,
            tier=known.tier if own.tier is None else own.tier,
            memory=known.memory if own.memory is None else own.memory,
            acts_on=known.acts_on if own.acts_on is None else own.acts_on,
            needs_gpu=known.needs_gpu if own.needs_gpu is None else own.needs_gpu,
            text=known.text,
        )

    @property
    def memory_limit_bytes(self) -> float:
        """The tightest absolute limit on the peak of memory; infinite without one."""
        return min((limit.bound for limit in self.limits if limit.is_memory_cap), default=math.inf)

    @cached_property
    def facts(self) -> Mapping[str, Value]:
        """Names that expressions may use besides the parameters."""
        return {"device": self.device, "cpu_cores": self.cpu_cores, "devices": self.devices}

    @cached_property
    def _conditions(self) -> tuple[tuple[str, Expression], ...]:
        return tuple((name, Expression(p.when)) for name, p in self.parameters.items() if p.when is not None)

    @cached_property
    def _without_gpu(self) -> frozenset[str]:
        return frozenset(name for name in self.parameters if self.device == "cpu" and self.trait(name).needs_gpu)

    @cached_property
    def _forbidden(self) -> tuple[Expression, ...]:
        return tuple(Expression(rule.forbid) for rule in self.rules)

    def canonical(self, config: Config) -> Config:
        """`config` with every parameter that does nothing at its default: one identity for one behaviour.

        Nothing does what its `when` rules out, and what needs a GPU where there is none.
        """
        inactive = {*self._without_gpu} | {
            n for n, condition in self._conditions if not condition.evaluate({**self.facts, **config})
        }
        return {name: self.parameters[name].default if name in inactive else config[name] for name in self.parameters}

    def legal(self, config: Config) -> bool:
        """Whether no rule forbids it and the workload does not refuse it."""
        names = {**self.facts, **config}
        return not any(rule.evaluate(names) for rule in self._forbidden) and not self.refusal(config)

    def refusal(self, config: Config) -> str:
        """Why it cannot run here whatever the rules say; empty when it can."""
        if (ranks := self.workload.ranks(config)) > self.devices:
            return f"{ranks} processes need as many {'cores' if self.device == 'cpu' else 'GPUs'}, not {self.devices}"
        return self.workload.refuses(config)

    def dump(self) -> dict[str, Any]:
        """Everything as plain JSON values; `autotuner.spec.restore` is the inverse."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=False)

    @field_validator("parameters")
    @classmethod
    def _no_fact_names(cls, parameters: Mapping[str, Parameter]) -> Mapping[str, Parameter]:
        for taken in ("device", "cpu_cores", "devices"):
            if taken in parameters:
                raise ValueError(f"a parameter cannot be called {taken}: rules use the name for the machine's own")
        return parameters
