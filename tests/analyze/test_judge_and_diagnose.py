import math
from datetime import UTC, datetime

import pytest

from autotuner.analyze.batch_slope import fit_line
from autotuner.analyze.diagnose import diagnose
from autotuner.analyze.judge import judge
from autotuner.analyze.steps import batch_parameter
from autotuner.errors import UsageError
from autotuner.executors.process import ProcessExecutor
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Diagnosis, Failure, FailureKind, Measurement, Origin, Trial, Verdict

PARAMETERS = {
    "batch_size": {"powers_of_two": [1, 64], "default": 1, "live": True, "memory": True},
    "dtype": {"choices": ["a", "b"], "default": "a"},
}
CONFIG = {"batch_size": 1, "dtype": "a"}


def study(parameters=PARAMETERS, **sections):
    return StudySpec.model_validate({
        "name": "s", "workload": Replay(), "executor": ProcessExecutor(), "parameters": parameters,
        "objectives": [{"maximize": "throughput_requests_per_s"}], **sections,
    })  # fmt: skip


def measured(samples=None, telemetry=None, setup_s=2.0, **more):
    samples = {"throughput_requests_per_s": (9.0, 10.0, 11.0, 10.0, 10.0)} if samples is None else samples
    return Measurement({**samples, **more}, setup_s, 0.5, 1.0, telemetry or {}, {}, datetime(2026, 1, 1, tzinfo=UTC))


def tried(config, outcome):
    verdict = None if isinstance(outcome, Failure) else Verdict({}, {}, Diagnosis("unknown"))
    return Trial(0, config, Origin.SAMPLER, outcome, verdict)


def stepping(fixed_s, per_item_s, sizes, dtype="a"):
    """Trials of a workload whose step takes fixed_s + per_item_s b."""
    times = {b: (fixed_s + per_item_s * b,) * 5 for b in sizes}
    return [tried({"batch_size": b, "dtype": dtype}, measured({"latency_s": time})) for b, time in times.items()]


# judge


def test_objectives_are_reduced_as_the_table_says_and_precision_is_known():
    verdict = judge(study(), CONFIG, measured(), None)
    assert verdict.objectives == {"throughput_requests_per_s": 10.0}
    assert 0 < verdict.precision_ratio < 0.2
    assert verdict.feasible
    assert verdict.violations == {}


def test_several_objectives_make_a_score_whose_baseline_is_one():
    goals = [{"maximize": "throughput_requests_per_s"}, {"minimize": "latency_p50_s", "weight": 3}]
    spec = study(objectives=goals)
    baseline = measured(latency_s=(0.1,) * 5)
    first = judge(spec, CONFIG, baseline, None)
    assert list(first.objectives) == ["score", "throughput_requests_per_s", "latency_p50_s"]
    assert first.objectives["score"] == pytest.approx(1.0)
    twice = measured({"throughput_requests_per_s": (20.0,) * 5, "latency_s": (0.2,) * 5})
    tried_before = [tried(CONFIG, baseline)]
    verdict = judge(spec, CONFIG, twice, baseline, tried_before)
    assert verdict.objectives["score"] == pytest.approx(2 ** (1 / 3) / 2), "twice the rate, half as quick"
    assert judge(spec, CONFIG, twice, None, tried_before).objectives["score"] == pytest.approx(20 ** (1 / 3) / 0.2)
    half = judge(study(objectives=goals[:1]), CONFIG, measured(), None).precision_ratio
    assert judge(spec, CONFIG, measured(latency_s=(0.1,) * 5), None).precision_ratio == pytest.approx(half / 3)


@pytest.mark.parametrize("latency", [0.0, math.nan])
def test_a_score_needs_positive_values(latency):
    spec = study(objectives=[{"maximize": "throughput_requests_per_s"}, {"minimize": "latency_p50_s"}])
    verdict = judge(spec, CONFIG, measured(latency_s=(latency,) * 5), measured(latency_s=(0.1,) * 5), ())
    assert math.isnan(verdict.objectives["score"])
    with pytest.raises(UsageError, match="latency_p50_s of the baseline is"):
        judge(spec, CONFIG, measured(latency_s=(latency,) * 5), None)


def test_what_the_main_objective_gains_alone_the_score_gains():
    spec = study(objectives=[{"maximize": "throughput_requests_per_s", "weight": 2}, {"minimize": "latency_p50_s"}])
    faster = measured({"throughput_requests_per_s": (11.0,) * 5, "latency_s": (0.1,) * 5})
    verdict = judge(spec, CONFIG, faster, measured(latency_s=(0.1,) * 5), ())
    assert verdict.objectives["score"] == pytest.approx(1.1)


def test_precision_is_that_of_the_metric_s_own_statistic():
    latency_s = tuple(0.1 + 0.001 * (n % 7) + 0.1 * (n % 23 == 0) for n in range(120))
    ratios = [
        judge(study(objectives=[{"minimize": f"latency_{name}_s"}]), CONFIG, measured(latency_s=latency_s), None)
        for name in ("p50", "p95")
    ]
    assert ratios[1].precision_ratio > 3 * ratios[0].precision_ratio


def test_limits_are_absolute_or_relative_to_the_baseline():
    spec = study(limits=["latency_p95_s <= 100 ms", "peak_memory_bytes <= 2 x baseline"])
    baseline = measured(latency_s=(0.08,), peak_memory_bytes=(100.0,))
    verdict = judge(spec, CONFIG, measured(latency_s=(0.15,), peak_memory_bytes=(150.0,)), baseline)
    assert verdict.violations == pytest.approx({spec.limits[0].text: 0.5, spec.limits[1].text: -0.25})
    assert not verdict.feasible


def test_the_baseline_is_its_own_reference_and_may_break_an_absolute_limit():
    spec = study(limits=["latency_p95_s <= 100 ms", "latency_p95_s <= 1.5 x baseline"])
    verdict = judge(spec, CONFIG, measured(latency_s=(0.2,)), None)
    assert verdict.violations == pytest.approx({spec.limits[0].text: 1.0, spec.limits[1].text: -1 / 3})


def test_a_limit_on_what_was_not_measured_is_not_kept():
    verdict = judge(study(limits=["latency_p95_s <= 1 s"]), CONFIG, measured(), None)
    assert list(verdict.violations.values()) == [math.inf]


@pytest.mark.parametrize("telemetry", [{"power_w": 300.0}, {"power_mean_w": 300.0}])
def test_telemetry_and_setup_count_where_the_table_names_them(telemetry):
    spec = study(limits=["power_mean_w <= 200 W", "setup_s <= 4 s"])
    verdict = judge(spec, CONFIG, measured(telemetry=telemetry | {"other": 1.0}), None)
    assert list(verdict.violations.values()) == pytest.approx([0.5, -0.5])


def test_an_objective_that_the_workload_does_not_report_is_the_users_mistake():
    with pytest.raises(UsageError, match="does not report throughput_requests_per_s") as refused:
        judge(study(), CONFIG, measured({"throughput_tokens_per_s": (1.0,)}), None)
    assert "throughput_tokens_per_s" in refused.value.hint


def test_a_failed_objective_value_stays_a_value():
    failed = measured({"throughput_requests_per_s": (math.nan, math.nan)})
    verdict = judge(study(), CONFIG, failed, measured(), [tried(CONFIG, measured())])
    assert math.isnan(verdict.objectives["throughput_requests_per_s"])


# diagnose


def test_alone_a_measurement_says_nothing():
    assert diagnose(study(), CONFIG, measured(), ()).binding == "unknown"


def test_a_step_that_hardly_grows_with_the_batch_wants_a_larger_one():
    trials = stepping(0.010, 0.001, (2, 4, 8, 16))
    found = diagnose(study(), CONFIG, measured({"latency_s": (0.011,)}), trials)
    assert found.binding == "unknown", "launches or the weights of every step: a line cannot tell"
    assert found.evidence == pytest.approx({"overhead_share_ratio": 10 / 11, "fixed_s": 0.010, "per_item_s": 0.001})
    assert found.try_next == ("batch_size",)
    assert "91%" in found.sentence
    assert "10.0 ms" in found.sentence


@pytest.mark.parametrize("samples", ["throughput_requests_per_s", "throughput_samples_per_s", "throughput_steps_per_s"])
def test_rates_say_the_same_as_times(samples):
    def at(size):
        step_s = 0.010 + 0.001 * size
        return measured({samples: ((1 if "steps" in samples else size) / step_s,)})

    trials = [tried({**CONFIG, "batch_size": b}, at(b)) for b in (2, 4)]
    found = diagnose(study(), CONFIG, at(1), trials)
    assert found.evidence["fixed_s"] == pytest.approx(0.010)


def test_a_large_batch_on_the_same_line_is_not_bound_by_launches():
    trials = stepping(0.010, 0.001, (1, 2, 4))
    config = {**CONFIG, "batch_size": 64}
    assert diagnose(study(), config, measured({"latency_s": (0.074,)}), trials).binding == "unknown"


@pytest.mark.parametrize(
    "trials",
    [
        stepping(0.010, 0.001, (2,)),  # two points with its own: any line fits
        stepping(0.010, 0.001, (2, 4, 8), dtype="b"),  # another configuration's
        [tried({**CONFIG, "batch_size": b}, Failure(FailureKind.CRASHED, "")) for b in (2, 4, 8)],
        [*stepping(0.050, 0.0, (2,)), *stepping(0.005, 0.0, (4,)), *stepping(0.03, 0.0, (8,))],  # no line
        [*stepping(0.03, 0.0, (2,)), *stepping(0.012, 0.0, (4,)), *stepping(0.035, 0.0, (8,))],  # rises, but no line
        stepping(0.020, -0.001, (2, 4, 8)),  # falls
    ],
)
def test_where_the_line_is_not_there_the_answer_is_unknown(trials):
    assert diagnose(study(), CONFIG, measured({"latency_s": (0.011,)}), trials).binding == "unknown"


def test_tokens_alone_do_not_say_how_long_a_step_takes():
    trials = [tried({**CONFIG, "batch_size": b}, measured({"throughput_tokens_per_s": (5.0 * b,)})) for b in (2, 4, 8)]
    assert diagnose(study(), CONFIG, measured({"throughput_tokens_per_s": (5.0,)}), trials).binding == "unknown"


def test_close_to_the_memory_limit_is_capacity():
    spec = study(limits=["peak_memory_bytes <= 10 GiB"])
    found = diagnose(spec, CONFIG, measured(peak_memory_bytes=(9.5 * 2**30,)), ())
    assert (found.binding, found.ceiling_ratio, found.try_next) == ("capacity", pytest.approx(0.95), ("batch_size",))
    assert "9.50 GiB" in found.sentence
    assert diagnose(spec, CONFIG, measured(peak_memory_bytes=(8 * 2**30,)), ()).binding == "unknown"
    assert diagnose(spec, CONFIG, measured(), ()).binding == "unknown"


def test_next_to_an_out_of_memory_is_capacity():
    config = {**CONFIG, "batch_size": 16}
    too_large = tried({**CONFIG, "batch_size": 32}, Failure(FailureKind.OUT_OF_MEMORY, ""))
    assert diagnose(study(), config, measured(), [too_large]).binding == "capacity"
    assert diagnose(study(), {**CONFIG, "batch_size": 8}, measured(), [too_large]).binding == "unknown"
    assert diagnose(study(), {**config, "dtype": "b"}, measured(), [too_large]).binding == "unknown"
    assert diagnose(study(), {**CONFIG, "batch_size": 64}, measured(), [too_large]).binding == "unknown"
    crashed = tried(too_large.config, Failure(FailureKind.CRASHED, ""))
    assert diagnose(study(), config, measured(), [crashed]).binding == "unknown"


def test_the_batch_is_called_so_or_is_the_only_live_parameter_that_drives_memory():
    size = {"int": [1, 4], "default": 1, "live": True, "memory": True}
    text = {"choices": ["a", "b"], "default": "a", "live": True, "memory": True}
    assert batch_parameter(study()) == "batch_size"
    assert batch_parameter(study({"concurrency": size, "mode": text})) == "concurrency"
    assert batch_parameter(study({"concurrency": size, "beams": size})) is None
    assert batch_parameter(study({"mode": text})) is None


def test_least_squares_recovers_a_line_through_relative_noise():
    noise = {1: 1.02, 2: 0.98, 4: 1.01, 8: 0.99, 16: 1.0}
    line = fit_line({b: (0.01 + 0.002 * b) * factor for b, factor in noise.items()})
    assert line.fixed_s == pytest.approx(0.01, rel=0.05)
    assert line.per_item_s == pytest.approx(0.002, rel=0.05)
    assert line.misfit_ratio < 0.03
    assert fit_line({1.0: 0.1, 2.0: 0.1, 4.0: 0.0}) is None
