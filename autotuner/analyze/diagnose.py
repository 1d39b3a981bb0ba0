"""What binds a configuration: a hypothesis from what was measured, and what a causal probe makes of it.

A hypothesis needs a resource that takes at least half of a step. It counts as confirmed only after a probe has relieved
that resource and the step became faster in proportion. Unknown is better than wrong.
"""

from collections.abc import Sequence
from dataclasses import replace

from autotuner.analyze.advice import cannot_help, try_next
from autotuner.analyze.batch_slope import Line, fit_line
from autotuner.analyze.capacity import full_memory
from autotuner.analyze.shares import LARGEST_EFFICIENCY, Shares, divide
from autotuner.analyze.steps import batch_parameter, step_times_s
from autotuner.analyze.wording import GPU_SIGNALS, below_roofs, mixture, sentence
from autotuner.metrics import format_quantity
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Ceilings, Config, Diagnosis, Estimate, Measurement, Metrics, Trial

BOUND_SHARE = 0.5  # of a step: what takes less cannot be what binds it alone
PROBED_SHARE = 0.25  # of a step: what takes less is not worth a probe
_LARGEST_MISFIT_RATIO = 0.15  # of a time: beyond it the line says nothing
_CONFIRMED, _REFUTED = 0.5, 0.25  # elasticities
_COUNTED = {Binding.COMPUTE: "relief_left_flops_ratio", Binding.MEMORY_BANDWIDTH: "relief_left_bytes_ratio"}
_LARGEST_LEFT = 0.8  # of the demand: a smaller relief proves nothing
_UNTOUCHED = 0.7  # of another suspect's demand must be left, or its relief may be what helped
_NOTICEABLE = 0.05  # lower end of the interval: a relief must gain at least this much


def diagnose(
    spec: StudySpec,
    config: Config,
    measurement: Measurement,
    trials: Sequence[Trial],
    ceilings: Ceilings | None = None,
) -> Diagnosis:
    """The hypothesis.

    Args:
        spec: The study.
        config: What was measured.
        measurement: What was seen.
        trials: The record so far; those that differ from `config` in the batch only are compared with it.
        ceilings: Of this machine; without them arithmetic and memory cannot be told apart.
    """
    if measurement.contended:
        return Diagnosis(Binding.INVALID, f"The measurement was disturbed: {measurement.reason}.")
    line, shares = _line(spec, config, measurement, trials), divide(measurement, ceilings)
    if full := full_memory(spec, config, measurement, trials, line, shares):
        return _advised(spec, full)
    if shares is None or not shares.ratios:
        return _advised(spec, _paying_per_step(spec, config, line) or _unknown(shares))
    binding, share = shares.ranked[0]
    evidence = _evidence(shares, measurement)
    if share < BOUND_SHARE:
        return Diagnosis(Binding.UNKNOWN, mixture(shares), evidence)
    floor_s = shares.floors_s.get(binding) if binding in _roofs(ceilings) else None
    ceiling_ratio = floor_s / shares.step_s if floor_s and floor_s <= LARGEST_EFFICIENCY * shares.step_s else None
    text = sentence(binding, shares, measurement.telemetry, ceiling_ratio)
    return _advised(spec, Diagnosis(binding, text, evidence, ceiling_ratio))


def hypotheses(diagnosis: Diagnosis) -> tuple[Binding, ...]:
    """What is worth a probe, likeliest first: the binding, then whatever else takes a good part of a step."""
    if diagnosis.binding in (Binding.INVALID, Binding.CAPACITY):
        return ()
    named = {f"{binding}_share_ratio": binding for binding in Binding}
    shares = {named[name]: share for name, share in diagnosis.evidence.items() if name in named}
    ranked = sorted(shares, key=lambda binding: -shares[binding])
    return tuple(binding for binding in ranked if shares[binding] >= PROBED_SHARE)


def prove(spec: StudySpec, diagnosis: Diagnosis, probed: Binding, relieved: Measurement) -> Diagnosis:
    """The diagnosis after a probe has relieved `probed`.

    The elasticity is the share of the step that went away for the share of the demand that went away. It confirms from
    0.5 on; under 0.25 it refutes, and nothing is known any more unless another probe confirms.
    """
    if relieved.contended or not _tells(diagnosis, probed, relieved.telemetry):
        return diagnosis
    elasticity = _elasticity(probed, relieved.telemetry)
    known = replace(diagnosis, elasticities={**diagnosis.elasticities, probed.value: elasticity})
    if elasticity.value >= _CONFIRMED and elasticity.low > _NOTICEABLE:
        if known.binding is not probed:
            shorter = 1 - relieved.telemetry["relieved_time_ratio"]
            text = f"A step is {shorter:.0%} shorter when relieved of {_words(probed)}."
            known = replace(known, binding=probed, sentence=text, ceiling_ratio=None, try_next=())
            known = _advised(spec, known)
        return replace(known, confirmed=True)
    if known.binding is probed and elasticity.value < _REFUTED:
        text = f"It looked like {_words(probed)}, but relieved of it a step is no faster: something else binds."
        return replace(known, binding=Binding.UNKNOWN, sentence=text, ceiling_ratio=None, try_next=(), cannot_help=())
    return known


def _tells(diagnosis: Diagnosis, probed: Binding, seen: Metrics) -> bool:
    """Whether the relief took away a good part of what it should, and nothing else that may bind the step."""
    if "relief_left_ratio" not in seen or _left(probed, seen) > _LARGEST_LEFT:
        return False
    suspects = {roof for roof in _COUNTED if roof in hypotheses(diagnosis)} - {probed}
    return all(_left(other, seen) >= _UNTOUCHED for other in suspects)


def _left(resource: Binding, seen: Metrics) -> float:
    """The demand left under relief, as counted; as the workload says where a step cannot be counted."""
    counted = seen.get(_COUNTED.get(resource, ""))
    return seen["relief_left_ratio"] if counted is None else counted


def _elasticity(probed: Binding, seen: Metrics) -> Estimate:
    gone = 1 - _left(probed, seen)
    value, high, low = (
        (1 - seen[f"relieved_time_{name}ratio"]) / gone for name in ("", "low_", "high_")
    )  # the shorter the relieved step, the larger the elasticity
    return Estimate(value, low, high)


def _advised(spec: StudySpec, diagnosis: Diagnosis) -> Diagnosis:
    if diagnosis.binding is Binding.UNKNOWN:
        return diagnosis
    return replace(
        diagnosis,
        try_next=diagnosis.try_next or try_next(spec, diagnosis.binding),
        cannot_help=cannot_help(spec, diagnosis.binding, diagnosis.ceiling_ratio),
    )


def _roofs(ceilings: Ceilings | None) -> tuple[Binding, ...]:
    """Resources whose ceiling is known; one that was measured while others worked is only a lower bound."""
    disturbed = ceilings.contended if ceilings else ()
    of = {Binding.COMPUTE: ("matmul_",), Binding.MEMORY_BANDWIDTH: ("copy_", "triad_")}
    return tuple(roof for roof, names in of.items() if not any(name.startswith(names) for name in disturbed))


def _unknown(shares: Shares | None) -> Diagnosis:
    evidence = {} if shares is None else {"step_s": shares.step_s}
    below = below_roofs(shares).strip() if shares else ""
    text = below or "Nothing that was measured says what binds this configuration."
    return Diagnosis(Binding.UNKNOWN, text, evidence)


def _evidence(shares: Shares, measurement: Measurement) -> dict[str, float]:
    counted = ("step_flops", "step_bytes", "step_operations", *GPU_SIGNALS)
    counts = {name: measurement.telemetry[name] for name in counted if name in measurement.telemetry}
    ratios = {f"{binding}_share_ratio": ratio for binding, ratio in shares.ratios.items()}
    floors = {f"{binding}_floor_s": floor_s for binding, floor_s in shares.floors_s.items()}
    return {"step_s": shares.step_s, **shares.parts_s, **counts, **floors, **ratios}


def _line(spec: StudySpec, config: Config, measurement: Measurement, trials: Sequence[Trial]) -> Line | None:
    """t(b) = a + c b through the trials that differ in the batch only; None if they do not lie on a line."""
    batch = batch_parameter(spec)
    line = None if batch is None else fit_line(step_times_s(batch, config, measurement, trials))
    return line if line is not None and line.misfit_ratio <= _LARGEST_MISFIT_RATIO else None


def _paying_per_step(spec: StudySpec, config: Config, line: Line | None) -> Diagnosis | None:
    """More than half of the step does not depend on the batch, for sure.

    Without counts it cannot be told whether launches or the weights that every step reads are the fixed part. Either
    way a larger batch shares it.
    """
    batch = batch_parameter(spec)
    if batch is None or line is None:
        return None
    share = line.overhead_share(float(config[batch] or 0))
    if share.low <= BOUND_SHARE:
        return None
    fixed, item = format_quantity(line.fixed_s, "s"), format_quantity(line.per_item_s, "s")
    return Diagnosis(
        Binding.UNKNOWN,
        f"{share.value:.0%} of a step does not depend on {batch}: {fixed} for every step and {item} for every item.",
        {"overhead_share_ratio": share.value, "fixed_s": line.fixed_s, "per_item_s": line.per_item_s},
        try_next=(batch,),
    )


def _words(binding: Binding) -> str:
    return binding.replace("_", " ")
