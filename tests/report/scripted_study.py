"""A scripted study for tests and for looking: SYNTHETIC events, nothing here was measured.

`python tests/report/scripted_study.py SECONDS` plays it on the terminal, one event every SECONDS.
"""

import sys
import time
from datetime import UTC, datetime

from autotuner.events import (
    Event,
    Note,
    PairMeasured,
    StageStarted,
    StudyEnded,
    StudyStarted,
    StudySummary,
    TrialEnded,
    TrialStarted,
)
from autotuner.types import (
    Binding,
    Config,
    Contribution,
    Decision,
    Diagnosis,
    Equivalence,
    Failure,
    FailureKind,
    Measurement,
    Origin,
    Pair,
    Tier,
    Trial,
    Verdict,
    Verification,
)

METRIC = "throughput_tokens_per_s"
LIMIT = "latency_p95_s <= 150 ms"
BASELINE: Config = {"batch_size": 8, "threads": 2, "compile": "none", "attention": "sdpa", "dtype": "float32"}
WINNER: Config = {**BASELINE, "batch_size": 16, "compile": "default"}
AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
ENVIRONMENT = {"cpu": "Some CPU", "torch": "2.13.0", "transformers": "5.23.0"}


def measured(number: int, config: Config, value: float, excess: float = -0.2, origin: Origin = Origin.SAMPLER) -> Trial:
    measurement = Measurement({METRIC: (value,) * 5}, 1.5, 0.6, 1.2, {}, ENVIRONMENT, AT)
    verdict = Verdict({METRIC: value}, {LIMIT: excess}, Diagnosis(Binding.COMPUTE), precision_ratio=0.012)
    return Trial(number, config, origin, measurement, verdict)


def failed(number: int, config: Config, kind: FailureKind, message: str) -> Trial:
    return Trial(number, config, Origin.SAMPLER, Failure(kind, message, f"logs/trial-{number}.log", 3.0), None)


TRIALS = (
    measured(0, BASELINE, 2204.0, origin=Origin.BASELINE),
    measured(1, {**BASELINE, "batch_size": 16}, 2612.0),
    failed(2, {**BASELINE, "batch_size": 64}, FailureKind.OUT_OF_MEMORY,
           "tried to allocate 20.00 GiB [bold]on[/bold] a device with\n\x1b[31m8.00 GiB\x1b[0m"),
    measured(3, {**BASELINE, "threads": 1}, 1190.0),
    measured(4, {**BASELINE, "batch_size": 32}, 2890.0, excess=0.31),
    measured(5, {**BASELINE, "dtype": "bfloat16"}, 902.0),
    measured(6, WINNER, 2931.0),
    failed(7, {**BASELINE, "compile": "max-autotune", "attention": "eager", "dtype": "bfloat16", "threads": 1},
           FailureKind.TIMED_OUT, "no result after 600 s"),
    measured(8, {**BASELINE, "compile": "default"}, 2411.0),
    measured(9, {**BASELINE, "attention": "eager"}, 1987.0),
    measured(10, {**WINNER, "attention": "eager"}, 2705.0),
    measured(11, {**WINNER, "threads": 1}, 1330.0),
)  # fmt: skip
BEST_SO_FAR = (0, 1, 1, 1, 1, 1, 6, 6, 6, 6, 6, 6)

PAIRS = tuple(Pair(n // 4, 2900.0 + 9 * (n % 5), 2190.0 + 7 * (n % 4), contended=n == 5) for n in range(12))
VERIFICATION = Verification(
    Decision.BETTER, "The interval lies above the region of equivalence.", WINNER, BASELINE, METRIC,
    gain_ratio=1.33, gain_interval=(1.28, 1.38), pairs=PAIRS, noise_floor_ratio=0.014,
    equivalence=Equivalence(True, Tier.ROUNDING, "largest KL 2.1e-06 nats, bound 1e-03", {"output_kl_nats": 2.1e-6}),
    metrics={METRIC: 2918.0, "latency_p95_s": 0.141, "peak_memory_bytes": 1.73e9},
    baseline_metrics={METRIC: 2194.0, "latency_p95_s": 0.098, "peak_memory_bytes": 1.57e9},
    contributions=(
        Contribution("batch_size", 1.18, (1.14, 1.23), 6),
        Contribution("compile", 1.12, (0.0, float("inf")), 2),
    ),
    duration_s=131.0,
)  # fmt: skip
HOST_BOUND = Diagnosis(
    Binding.HOST_LAUNCH,
    "71% of a step is the host's own work: 3.20 ms of Python and launches around 412 operations.",
    {"host_launch_share_ratio": 0.71},
    try_next=("compile", "batch_size"),
)
ROOFED = Diagnosis(
    Binding.COMPUTE,
    "93% of a step is arithmetic: 98.1 GFLOP/s, 81% of what was measured on this machine.",
    ceiling_ratio=0.81,
    confirmed=True,
)
SUMMARY = StudySummary(
    "qwen3-cpu", Decision.BETTER, "All 12 trials of the budget are used; the interval excludes equality.",
    VERIFICATION, 12, {"timed_out": 1, "out_of_memory": 1},
    {"starting": 3.0, "setup": 61.0, "warmup": 22.0, "measuring": 90.0, "verifying": 131.0, "other": 1.0},
    "sqlite:///studies/autotune.db", "studies/qwen3-cpu", ENVIRONMENT, {METRIC: 2204.0}, "logs/trial-7.log",
    HOST_BOUND, ROOFED,
)  # fmt: skip
STARTED = StudyStarted(
    "qwen3-cpu", METRIC, True, 5, 288, 12, 600.0, 0, "2 cores of Some CPU, 8.00 GiB, no GPU; torch 2.13.0",
    "sqlite:///studies/autotune.db", "studies/qwen3-cpu",
)  # fmt: skip


def changed(config: Config) -> Config:
    return {name: value for name, value in config.items() if value != BASELINE[name]}


def events() -> list[Event]:
    played: list[Event] = [STARTED]
    for trial, best in zip(TRIALS, BEST_SO_FAR, strict=True):
        played.append(TrialStarted(trial.number, trial.config, changed(trial.config), trial.origin))
        played.append(TrialEnded(trial, changed(trial.config), best, 12.0 * (trial.number + 1)))
    played.append(Note("trial 9 was measured again: another process used the CPU"))
    played.append(StageStarted("outputs", "the same outputs as the baseline's?"))
    played.append(StageStarted("race", "batch_size=16 compile=default against the baseline"))
    for count, pair in enumerate(PAIRS, start=1):
        interval = (0.0, float("inf")) if count < 4 else (1.33 - 0.6 / count, 1.33 + 0.6 / count)
        played.append(PairMeasured("race", pair, count, 1.33, interval))
    played.append(StageStarted("contributions", "what is batch_size=16 worth?"))
    played.append(PairMeasured("contributions", PAIRS[0], 1, 1.18, (0.0, float("inf"))))
    played.append(StudyEnded(SUMMARY))
    return played


def play(pause_s: float) -> None:
    from autotuner.report.live import watch_live
    from autotuner.report.terminal import show, summary

    with watch_live(sys.stderr) as listener:
        for event in events():
            listener(event)
            time.sleep(pause_s)
    show(summary(SUMMARY))


if __name__ == "__main__":
    play(float(sys.argv[1]))
