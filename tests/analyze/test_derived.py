import math
from datetime import UTC, datetime
from typing import Literal

import pytest

from autotuner.analyze.judge import all_samples, all_values, judge
from autotuner.analyze.scaling import scaling
from autotuner.executors.process import ProcessExecutor
from autotuner.metrics import METRICS, format_value, parse_quantity, value_of
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Ceilings, Diagnosis, Estimate, Failure, FailureKind, Measurement, Origin, Trial, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def measured(telemetry=None, contended=False, **samples):
    return Measurement(samples, 2.0, 0.5, 1.0, telemetry or {}, {}, NOW, contended=contended)


def ceilings(contended=(), **rates):
    values = {f"matmul_{form}_flops_per_s": Estimate(rate, rate, rate) for form, rate in rates.items()}
    return Ceilings(values, {}, NOW, contended)


def study(parameters, **sections):
    return StudySpec.model_validate({
        "name": "s", "workload": Ranked(), "executor": ProcessExecutor(), "parameters": parameters,
        "objectives": [{"maximize": "throughput_samples_per_s"}], **sections,
    })  # fmt: skip


class Ranked(Replay):
    """Runs on as many processes as two of its parameters say."""

    kind: Literal["ranked"] = "ranked"

    def ranks(self, config):
        return config["data_parallel"] * config["tensor_parallel"]


# what follows from one window


def test_shares_are_sums_over_all_steps():
    """One step of four waits for a loader with workers: the mean of ratios would say 17 %."""
    seen = measured(latency_s=(1.0, 1.0, 1.0, 3.0), input_wait_s=(0.0, 0.0, 0.0, 2.0), communication_s=(0.3,) * 4)
    values = all_values(seen)
    assert values["input_wait_ratio"] == pytest.approx(2 / 6)
    assert values["exposed_communication_ratio"] == pytest.approx(1.2 / 6)


def test_a_workload_that_never_waits_has_a_share_of_zero_and_one_that_does_not_say_has_none():
    assert all_values(measured(latency_s=(1.0,), input_wait_s=(0.0,)))["input_wait_ratio"] == 0.0
    assert "input_wait_ratio" not in all_values(measured(latency_s=(1.0,)))
    assert "input_wait_ratio" not in all_values(measured(input_wait_s=(1.0,)))


def test_the_time_of_a_step_is_the_median_block():
    assert all_values(measured(block_step_s=(0.1, 0.4, 0.2)))["step_s"] == 0.2


@pytest.mark.parametrize("power", [{"power_w": 300.0}, {"power_mean_w": 300.0}])
def test_energy_is_power_over_rate(power):
    values = all_values(measured(power, throughput_samples_per_s=(50.0, 100.0, 150.0), throughput_tokens_per_s=(6e4,)))
    assert values["energy_per_sample_j"] == pytest.approx(3.0)
    assert values["energy_per_token_j"] == pytest.approx(5e-3)


def test_energy_needs_both_sides():
    assert "energy_per_sample_j" not in all_values(measured(throughput_samples_per_s=(1.0,)))
    assert "energy_per_sample_j" not in all_values(measured({"power_w": 300.0}))
    assert "energy_per_sample_j" not in all_values(measured({"power_w": 300.0}, throughput_samples_per_s=(0.0,)))


def test_energies_print_and_parse():
    assert format_value("energy_per_token_j", 5e-3) == "5.00 mJ"
    assert format_value("energy_per_sample_j", 1234.0) == "1.23 kJ"
    assert parse_quantity("5 mJ", METRICS["energy_per_token_j"].unit) == pytest.approx(5e-3)


def test_mfu_holds_every_format_against_its_own_ceiling():
    """2e9 FLOPs at 1e12/s and 1e9 at 1e11/s need 2 ms and 10 ms of a step of 24 ms."""
    seen = measured(
        {"step_flops": 3e9, "step_flops_bfloat16": 2e9, "step_flops_float32": 1e9}, block_step_s=(0.024, 0.020, 0.030)
    )
    assert all_values(seen, ceilings(bfloat16=1e12, float32=1e11))["mfu_ratio"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "known",
    [
        None, ceilings(), ceilings(float16=1e12),
        ceilings(("matmul_float32_flops_per_s",), float32=1e11),
        ceilings(float32=1e10),  # a step ten times as fast as it allows: other units did the work, as with tf32
    ],
    ids=["nothing measured", "no ceiling", "another format's", "disturbed", "refuted"],
)  # fmt: skip
def test_mfu_is_not_known_without_a_ceiling_to_believe_in(known):
    assert "mfu_ratio" not in all_values(measured({"step_flops_float32": 1e9}, block_step_s=(0.01,)), known)


def test_mfu_needs_counted_flops_and_every_format_s_ceiling():
    assert "mfu_ratio" not in all_values(measured(block_step_s=(0.01,)), ceilings(float32=1e12))
    mixed = measured({"step_flops_float32": 1e9, "step_flops_integer": 1.0}, block_step_s=(0.01,))
    assert "mfu_ratio" not in all_values(mixed, ceilings(float32=1e12))


def test_what_a_workload_says_itself_counts():
    seen = measured(latency_s=(1.0,), input_wait_s=(0.5,), input_wait_ratio=(0.25,))
    assert value_of("input_wait_ratio", all_samples(seen)) == 0.25


def test_limits_and_objectives_see_them():
    parameters = {"data_parallel": {"choices": [1, 2], "default": 1}, "tensor_parallel": {"choices": [1], "default": 1}}
    limits = ["input_wait_ratio <= 10 %", "loss_error_ratio <= 2 %", "energy_per_sample_j <= 1 J"]
    spec = study(parameters, objectives=[{"minimize": "step_s"}], limits=limits)
    seen = measured(
        {"step_flops_float32": 1e9, "power_w": 200.0}, block_step_s=(0.02,), latency_s=(0.02,), input_wait_s=(0.004,),
        loss_error_ratio=(0.01,), throughput_samples_per_s=(100.0,),
    )  # fmt: skip
    verdict = judge(spec, spec.baseline, seen, None, ceilings=ceilings(float32=1e11))
    assert verdict.objectives == {"step_s": 0.02}
    assert list(verdict.violations.values()) == pytest.approx([1.0, -0.5, 1.0])


# scaling over trials

PARALLEL = {
    "data_parallel": {"choices": [1, 2, 4], "default": 1},
    "tensor_parallel": {"choices": [1, 2], "default": 1},
    "sharding": {"choices": ["none", "full"], "default": "none", "when": "data_parallel > 1"},
    "micro_batch": {"choices": [1, 2], "default": 1},
}


def tried(number, throughput_per_s, dp=1, tp=1, sharding="none", micro=1, **more):
    config = {"data_parallel": dp, "tensor_parallel": tp, "sharding": sharding, "micro_batch": micro}
    seen = measured(throughput_samples_per_s=(throughput_per_s,), **more)
    return Trial(number, config, Origin.SAMPLER, seen, Verdict({}, {}, Diagnosis("unknown")))


def test_efficiency_is_throughput_over_ranks_times_that_of_one():
    trials = [tried(0, 100.0), tried(1, 320.0, dp=4, sharding="full"), tried(2, 180.0, dp=2), tried(3, 300.0, 2, 2)]
    rows = scaling(study(PARALLEL), trials)
    assert [row.ranks for row in rows] == [2, 4, 4]
    assert [row.scaling_efficiency_ratio for row in rows] == pytest.approx([0.9, 0.8, 0.75])
    assert rows[1].changed == {"data_parallel": 4, "sharding": "full"}
    assert [(row.single_trial, row.throughput_per_s) for row in rows] == [(0, 180.0), (0, 320.0), (0, 300.0)]


def test_only_otherwise_equal_configurations_are_compared():
    trials = [tried(0, 100.0), tried(1, 150.0, micro=2), tried(2, 270.0, dp=2, micro=2)]
    (row,) = scaling(study(PARALLEL), trials)
    assert (row.single_trial, row.scaling_efficiency_ratio) == (1, pytest.approx(0.9))
    assert scaling(study(PARALLEL), [trials[0], trials[2]]) == []


def test_what_failed_or_was_disturbed_is_left_out():
    failed = Trial(0, tried(0, 1.0).config, Origin.SAMPLER, Failure(FailureKind.CRASHED, "no"), None)
    assert scaling(study(PARALLEL), [failed, tried(1, 180.0, dp=2)]) == []
    assert scaling(study(PARALLEL), [tried(0, 100.0), tried(1, 180.0, dp=2, contended=True)]) == []


def test_without_a_common_rate_nothing_is_said():
    silent = Trial(1, tried(1, 1.0, dp=2).config, Origin.SAMPLER, measured(latency_s=(1.0,)), None)
    assert scaling(study(PARALLEL), [tried(0, 100.0), silent]) == []
    assert scaling(study(PARALLEL), [tried(0, 0.0), tried(1, 180.0, dp=2)]) == []


def test_new_metrics_are_absent_where_nothing_was_measured():
    assert all(math.isnan(value_of(name, {})) for name in METRICS)
    assert set(all_values(measured())) == {"setup_s"}
