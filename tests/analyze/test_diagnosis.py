"""The hypothesis from counted steps, and what a probe makes of it; numbers by hand."""

from datetime import UTC, datetime
from typing import ClassVar, Literal

import pytest

from autotuner.analyze.diagnose import diagnose, hypotheses, prove
from autotuner.analyze.roofline import floor_times_s
from autotuner.analyze.shares import divide
from autotuner.executors.process import ProcessExecutor
from autotuner.plugins import Trait
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Binding, Ceilings, Diagnosis, Estimate, Measurement

COMPUTE, MEMORY, HOST, INPUT = Binding.COMPUTE, Binding.MEMORY_BANDWIDTH, Binding.HOST_LAUNCH, Binding.INPUT
NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEP_S = 0.010


class Known(Replay):
    """Never opened here; what it knows of its parameters is what matters."""

    kind: Literal["known"] = "known"
    traits: ClassVar[dict[str, Trait]] = {
        "batch_size": Trait(live=True, memory=True, acts_on=(HOST, MEMORY)),
        "dtype": Trait(acts_on=(MEMORY, COMPUTE)),
        "workers": Trait(acts_on=(INPUT,)),
        "mystery": Trait(),
    }


SPEC = StudySpec.model_validate({
    "name": "s", "workload": Known(), "executor": ProcessExecutor(),
    "parameters": {
        "batch_size": {"powers_of_two": [1, 8], "default": 1},
        "dtype": {"choices": ["a", "b"], "default": "a"},
        "workers": {"int": [0, 2], "default": 0},
        "mystery": {"bool": True, "default": False},
    },
    "objectives": [{"maximize": "throughput_steps_per_s"}],
})  # fmt: skip


def ceilings(contended=(), **values):
    known = {"matmul_float32_flops_per_s": 1e11, "copy_bytes_per_s": 8e9, "triad_bytes_per_s": 1e10, "launch_s": 2e-6}
    return Ceilings({name: Estimate(v, v, v) for name, v in (known | values).items()}, {}, NOW, contended)


def measured(telemetry=None, contended=False, **samples):
    """A step of 10 ms; all of it busy on the main thread unless said otherwise."""
    seen = {"main_thread_busy_ratio": 1.0, "step_kernel_s": 0.0, "step_tiny_s": 0.0, "step_operations": 10.0}
    raw = {"block_step_s": (STEP_S,) * 6, "throughput_steps_per_s": (1 / STEP_S,) * 6, **samples}
    reason = "other processes used 60% of the cores" if contended else "precision"
    return Measurement(raw, 1.0, 0.5, 1.0, seen | (telemetry or {}), {}, NOW, contended, reason)


def found(measurement, machine=None):
    return diagnose(SPEC, {name: p.default for name, p in SPEC.parameters.items()}, measurement, (), machine)


ARITHMETIC = {"step_kernel_s": 0.0098, "step_flops": 8e8, "step_flops_float32": 8e8, "step_bytes": 2e6}
STREAMING = {"step_kernel_s": 0.0098, "step_bytes": 9e7, "step_flops": 1e6, "step_flops_float32": 1e6}


def test_floors_divide_demands_by_the_measured_ceilings():
    floors = floor_times_s({"step_flops_float32": 8e8, "step_bytes": 2e7, "step_operations": 100.0}, ceilings())
    assert floors == pytest.approx({COMPUTE: 0.008, MEMORY: 0.002, HOST: 0.0002})  # triad is the better roof
    assert floor_times_s({"step_flops_float8": 1e9}, ceilings()) == {COMPUTE: 0.01}  # nobody measured this format
    assert floor_times_s({"step_flops_float8": 1e9}, Ceilings({}, {}, NOW)) == {}
    slow = ceilings(matmul_bfloat16_flops_per_s=1e9)  # as on a CPU without units for it
    assert floor_times_s({"step_flops_bfloat16": 1e8}, slow, step_s=0.1) == {COMPUTE: 0.1}
    assert floor_times_s({"step_flops_bfloat16": 1e8}, slow, step_s=0.01) == {COMPUTE: 0.001}, "it was faster than that"


def test_arithmetic_binds_and_says_how_far_from_the_ceiling():
    diagnosis = found(measured(ARITHMETIC), ceilings())
    assert (diagnosis.binding, diagnosis.confirmed) == (COMPUTE, False)
    assert diagnosis.ceiling_ratio == pytest.approx(0.8)
    assert diagnosis.sentence == "96% of a step is arithmetic: 80.0 GFLOP/s, 80% of what was measured on this machine."
    assert diagnosis.evidence["compute_floor_s"] == pytest.approx(0.008)
    assert diagnosis.try_next == ("dtype", "mystery")
    assert diagnosis.cannot_help == ("batch_size", "workers")


def test_memory_binds():
    diagnosis = found(measured(STREAMING), ceilings())
    assert diagnosis.binding == MEMORY
    assert diagnosis.ceiling_ratio == pytest.approx(0.9)
    assert "9.00 GB/s" in diagnosis.sentence
    assert diagnosis.try_next == ("batch_size", "dtype", "mystery")
    assert diagnosis.cannot_help == ("workers",)


def test_a_disturbed_ceiling_is_a_lower_bound_of_which_no_share_is_claimed():
    diagnosis = found(measured(ARITHMETIC), ceilings(contended=("matmul_float32_flops_per_s",)))
    assert (diagnosis.binding, diagnosis.ceiling_ratio, diagnosis.cannot_help) == (COMPUTE, None, ())
    assert "of what was measured" not in diagnosis.sentence
    assert found(measured(STREAMING), ceilings(contended=("matmul_float32_flops_per_s",))).ceiling_ratio is not None


def test_far_from_the_ceiling_nothing_is_ruled_out():
    slow = {**STREAMING, "step_bytes": 5e7}
    diagnosis = found(measured(slow), ceilings())
    assert diagnosis.binding == MEMORY
    assert diagnosis.cannot_help == ()


def test_python_and_tiny_operations_are_the_hosts():
    diagnosis = found(measured({"step_kernel_s": 0.005, "step_tiny_s": 0.004, "step_operations": 800.0}), ceilings())
    assert diagnosis.binding == HOST
    assert diagnosis.evidence["host_s"] == pytest.approx(0.009)
    assert "9.00 ms of Python and launches around 800 operations" in diagnosis.sentence


def test_a_step_that_sleeps_is_not_the_hosts_work():
    assert found(measured({"main_thread_busy_ratio": 0.01}), ceilings()).binding == Binding.UNKNOWN


def test_counting_slows_tiny_operations_so_only_the_large_ones_are_believed():
    """Counted, 40 ms of tiny operations in a step of 10 ms, 7 ms of which are one product."""
    mixed = {**ARITHMETIC, "step_kernel_s": 0.047, "step_tiny_s": 0.040}
    diagnosis = found(measured(mixed), ceilings())
    assert diagnosis.binding == COMPUTE
    assert diagnosis.evidence["host_s"] == pytest.approx(0.003)


def test_full_memory_binds_only_where_a_larger_batch_would_gain():
    limited = SPEC.model_copy(update={"limits": StudySpec.model_validate(
        {**SPEC.model_dump(exclude={"workload", "executor", "parameters", "objectives"}), "workload": Known(),
         "executor": ProcessExecutor(), "parameters": {"batch_size": {"powers_of_two": [1, 8], "default": 1}},
         "objectives": [{"maximize": "throughput_steps_per_s"}], "limits": ["peak_memory_bytes <= 1 GiB"]}
    ).limits})  # fmt: skip
    config = {name: parameter.default for name, parameter in SPEC.parameters.items()}

    def binding(telemetry):
        return diagnose(limited, config, measured(telemetry, peak_memory_bytes=(2.0**30,)), (), ceilings()).binding

    assert binding({"step_kernel_s": 0.001}) == Binding.CAPACITY, "more items would share the launches"
    assert binding(STREAMING) == Binding.CAPACITY, "more items would share the weights"
    assert binding(ARITHMETIC) == COMPUTE


def test_waiting_for_data_and_for_others():
    waits = {"input_wait_s": (0.0, 0.0, 0.018)}  # a loader with workers makes one batch wait for all: the mean counts
    diagnosis = found(measured({"step_kernel_s": 0.003}, **waits), ceilings())
    assert (diagnosis.binding, diagnosis.evidence["input_share_ratio"]) == (INPUT, pytest.approx(0.6))
    assert diagnosis.try_next == ("workers", "mystery")
    others = measured({"main_thread_busy_ratio": 0.2}, communication_s=(0.0075,))
    assert found(others, ceilings()).binding == Binding.COMMUNICATION


def test_operations_far_below_both_roofs_are_unknown():
    """A sort: all the time inside operations, but hardly any bytes or FLOPs."""
    assert found(measured({"step_kernel_s": 0.0098, "step_bytes": 1e6}), ceilings()).binding == Binding.UNKNOWN


def test_operations_too_small_for_the_machine_are_named():
    """Products of a small model whose weights lie in the cache."""
    small = {"step_kernel_s": 0.0075, "step_bytes": 1e5, "step_flops": 5e7, "step_flops_float32": 5e7}
    diagnosis = found(measured(small), ceilings())
    assert diagnosis.binding == Binding.UNKNOWN
    assert diagnosis.sentence == (
        "No single resource explains half of a step: host launch 25%. 75% is in operations that reach 7% of this "
        "machine's ceilings: too small for them, or threads that wait for each other."
    )


def test_a_compiled_step_below_every_roof_says_so():
    """Counted uncompiled its operations take longer than the step, so that nothing is left for the host."""
    small = {"step_kernel_s": 0.05, "step_bytes": 1e5, "step_flops": 5e7, "step_flops_float32": 5e7}
    diagnosis = found(measured(small), ceilings())
    assert diagnosis.binding == Binding.UNKNOWN
    assert diagnosis.sentence.startswith("100% is in operations that reach 5% of this machine's ceilings")


def test_no_resource_with_half_of_the_step_is_unknown_and_says_the_parts():
    both = {"step_kernel_s": 0.0095, "step_flops": 4.4e8, "step_flops_float32": 4.4e8, "step_bytes": 4.2e7}
    diagnosis = found(measured(both), ceilings())
    assert diagnosis.binding == Binding.UNKNOWN
    assert diagnosis.sentence.startswith("No single resource explains half of a step: compute 49%, memory bandwidth")
    assert hypotheses(diagnosis) == (COMPUTE, MEMORY)


def test_compiled_steps_are_shorter_than_their_operations():
    """Counted uncompiled, the operations take longer than the step: then none of it is Python."""
    shares = divide(measured({**ARITHMETIC, "step_kernel_s": 0.05, "step_tiny_s": 0.01}), ceilings())
    assert shares.parts_s["host_s"] == 0
    assert sum(shares.ratios.values()) <= 1 + 1e-9


def test_without_ceilings_the_host_can_still_be_told():
    assert found(measured({"step_kernel_s": 0.001})).binding == HOST
    assert found(measured(ARITHMETIC)).binding == Binding.UNKNOWN


def test_a_contended_measurement_is_invalid_and_not_a_bottleneck():
    diagnosis = found(measured(ARITHMETIC, contended=True), ceilings())
    assert diagnosis.binding == Binding.INVALID
    assert "60%" in diagnosis.sentence
    assert hypotheses(diagnosis) == ()


def test_on_a_gpu_the_host_binds_as_far_as_the_device_ran_dry():
    """Recorded shares are made up: what matters is which of the two sides is believed."""
    gpu = {"gpu_busy_ratio": 0.4, "step_flops_float32": 1e8, "step_bytes": 1e7}
    assert found(measured({**gpu, "drained_ratio": 0.95}), ceilings()).binding == HOST
    assert found(measured({**gpu, "drained_ratio": 0.1}), ceilings()).binding == Binding.UNKNOWN
    streaming = {**gpu, "step_bytes": 8e7, "drained_ratio": 0.1}
    assert found(measured(streaming), ceilings()).binding == MEMORY
    assert found(measured({**gpu, "drained_ratio": 0.1, "dram_busy_ratio": 0.8}), ceilings()).binding == MEMORY


def test_a_share_that_is_no_resources_is_not_probed():
    assert hypotheses(Diagnosis(HOST, "", {"overhead_share_ratio": 0.9, "input_share_ratio": 0.3})) == (INPUT,)


# probes


def relieved(ratio, left=0.0, half_width=0.05, contended=False):
    seen = {
        "relieved_time_ratio": ratio,
        "relieved_time_low_ratio": ratio - half_width,
        "relieved_time_high_ratio": ratio + half_width,
        "relief_left_ratio": left,
    }
    return measured(seen, contended)


def test_a_probe_confirms_and_gives_the_elasticity_with_its_interval():
    guess = found(measured(STREAMING), ceilings())
    sure = prove(SPEC, guess, MEMORY, relieved(0.55, left=0.5))
    assert sure.confirmed
    assert sure.binding == MEMORY
    assert sure.sentence == guess.sentence
    estimate = sure.elasticities["memory_bandwidth"]
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.9, 0.8, 1.0))


def test_a_probe_refutes():
    known = prove(SPEC, found(measured(STREAMING), ceilings()), MEMORY, relieved(0.98, left=0.2))
    assert (known.binding, known.confirmed, known.try_next) == (Binding.UNKNOWN, False, ())
    assert "looked like memory bandwidth" in known.sentence


def test_a_probe_that_is_not_significant_leaves_the_guess():
    known = prove(SPEC, found(measured(STREAMING), ceilings()), MEMORY, relieved(0.5, half_width=0.48))
    assert (known.binding, known.confirmed) == (MEMORY, False)


def test_what_was_really_left_is_counted():
    """Layers share their weights, but half of the bytes are the key-value cache's."""
    guess = found(measured(STREAMING), ceilings())
    counted = relieved(0.6, left=0.05)
    counted.telemetry["relief_left_bytes_ratio"] = 0.5
    assert prove(SPEC, guess, MEMORY, counted).elasticities["memory_bandwidth"].value == pytest.approx(0.8)
    counted.telemetry["relief_left_bytes_ratio"] = 0.9
    assert prove(SPEC, guess, MEMORY, counted) == guess, "hardly a relief"


def test_a_relief_that_takes_away_more_than_it_should_proves_nothing():
    """One request instead of many: less arithmetic, but also fewer bytes, and memory is a suspect too."""
    both = {"step_kernel_s": 0.0095, "step_flops": 4.4e8, "step_flops_float32": 4.4e8, "step_bytes": 4.2e7}
    guess, probe = found(measured(both), ceilings()), relieved(0.2, left=0.1)
    probe.telemetry.update({"relief_left_flops_ratio": 0.1, "relief_left_bytes_ratio": 0.2})
    assert prove(SPEC, guess, COMPUTE, probe) == guess
    probe.telemetry["relief_left_bytes_ratio"] = 0.95
    assert prove(SPEC, guess, COMPUTE, probe).confirmed


def test_a_floor_above_the_step_is_no_floor_on_a_gpu_either():
    gpu = {"gpu_busy_ratio": 0.9, "drained_ratio": 0.0, "step_bytes": 1.5e8, "step_flops": 8.6e8}
    diagnosis = found(measured({**gpu, "step_flops_float32": 8.6e8}), ceilings())
    assert (diagnosis.binding, diagnosis.ceiling_ratio) == (COMPUTE, pytest.approx(0.86))


@pytest.mark.parametrize("probe", [relieved(0.1, contended=True), measured()])
def test_a_disturbed_probe_or_none_says_nothing(probe):
    guess = found(measured(STREAMING), ceilings())
    assert prove(SPEC, guess, MEMORY, probe) == guess


def test_another_cause_can_be_confirmed_instead():
    known = prove(SPEC, Diagnosis(Binding.UNKNOWN, "mixed"), INPUT, relieved(0.4))
    assert (known.binding, known.confirmed) == (INPUT, True)
    assert "60% shorter when relieved of input" in known.sentence
    assert known.try_next == ("workers", "mystery")


def test_on_a_gpu_the_counters_are_explained_and_kept_as_evidence():
    counters = {"gpu_busy_ratio": 0.99, "tensor_busy_ratio": 0.06, "dram_busy_ratio": 0.81, "drained_ratio": 0.0}
    diagnosis = found(measured(counters), ceilings())
    assert diagnosis.binding == MEMORY
    assert diagnosis.sentence.endswith(
        "tensor cores 6% and its memory 81%: its memory bandwidth was at the practical limit."
    )
    assert diagnosis.evidence["dram_busy_ratio"] == 0.81
