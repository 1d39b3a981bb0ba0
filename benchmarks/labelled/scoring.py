"""From results to a confusion matrix, and to the numbers that are claimed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autotuner.types import Binding
from labelled.lab import Result

LABELS = tuple(Binding)
SHORT: Mapping[Binding, str] = {
    Binding.INPUT: "input", Binding.HOST_LAUNCH: "host", Binding.MEMORY_BANDWIDTH: "memory", Binding.COMPUTE: "compute",
    Binding.COMMUNICATION: "link", Binding.CAPACITY: "capacity", Binding.UNKNOWN: "unknown", Binding.INVALID: "invalid",
}  # fmt: skip

Answer = Callable[[Result], Binding]


def answered(results: Sequence[Result]) -> list[Result]:
    """Those that count: measured undisturbed, with a truth that holds."""
    return [result for result in results if result.answer is not None]


def ours(result: Result) -> Binding:
    """Our own answer."""
    assert result.answer is not None
    return result.answer.binding


def other(name: str) -> Answer:
    """Another rule's answer."""
    return lambda result: result.others[name]


def accuracy(results: Sequence[Result], answer: Answer = ours) -> float:
    """Share of right answers at the first place; NaN without results."""
    kept = answered(results)
    return sum(answer(result) in result.truth for result in kept) / len(kept) if kept else float("nan")


def confusion(results: Sequence[Result], answer: Answer = ours) -> str:
    """A table: a row a truth, a column an answer. Where several answers are right, a right one is in its own row."""
    counts: Counter[tuple[Binding, Binding]] = Counter()
    for result in answered(results):
        said = answer(result)
        counts[(said if said in result.truth else result.truth[0], said)] += 1
    lines = ["truth \\ answer  " + "".join(f"{SHORT[label]:>9}" for label in LABELS)]
    for truth in LABELS:
        row = [counts[truth, said] for said in LABELS]
        if any(row):
            lines.append(f"{SHORT[truth]:14}  " + "".join(f"{count or '.':>9}" for count in row))
    return "\n".join(lines)


def raw(result: Result) -> dict[str, Any]:
    """Everything about a result, as JSON values."""
    seen = result.measurement
    return {
        "name": result.case.name,
        "group": result.case.group,
        "truth": list(result.truth),
        "answer": None if result.answer is None else result.answer.binding,
        "right": result.right,
        "confirmed": result.answer is not None and result.answer.confirmed,
        "sentence": result.answer.sentence if result.answer else "",
        "evidence": dict(result.answer.evidence) if result.answer else {},
        "elasticities": {name: asdict(e) for name, e in result.answer.elasticities.items()} if result.answer else {},
        "telemetry": dict(seen.telemetry) if seen else {},
        "others": dict(result.others),
        "profile": asdict(result.profile) if result.profile else {},
        "check": dict(result.check),
        "skipped": result.skipped,
        "attempts": result.attempts,
        "duration_s": result.duration_s,
    }
