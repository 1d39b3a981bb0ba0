"""A study as one HTML page that needs no network: the verdict first, then the proof, then everything behind it."""

import math
import os
from html import escape
from pathlib import Path

from autotuner.errors import MachineError, UsageError
from autotuner.metrics import format_quantity
from autotuner.report import sentences
from autotuner.report.html import exact, pairs_table, section, table
from autotuner.report.study_data import Story, Tried
from autotuner.report.study_figures import (
    contributions_figure,
    front_figure,
    pairs_figure,
    parallel_figure,
    roofline_figure,
    search_figure,
    slices_figure,
    time_figure,
)
from autotuner.report.study_trials import KINDS, trials_table
from autotuner.report.text import (
    bounds,
    changes,
    count_failures,
    duration,
    factor,
    gain,
    more_is_better,
    one_line,
    percent,
    plural,
    print_value,
    spell,
)
from autotuner.types import Decision, Verification

MARK = "<!-- a report of autotune -->"  # by which we know a page that may be replaced


def page(story: Story) -> str:
    """The whole page."""
    here = Path(__file__)
    style, more, script = (
        here.with_name(name).read_text(encoding="utf-8") for name in ("profile.css", "study.css", "study.js")
    )
    sections = [
        _head(story), _proof(story), _contributions(story), _search(story), _parameters(story), _front(story),
        _bound(story), trials_table(story), _failures(story), _time(story), _again(story),
    ]  # fmt: skip
    return (
        f'<!DOCTYPE html>\n{MARK}\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(story.name)} · autotune</title><style>{style}{more}</style></head>\n"
        f"<body><main>{''.join(sections)}</main><script>{script}</script></body></html>\n"
    )


def write_page(text: str, path: Path) -> None:
    """Write a page whole or not at all; a page of ours is replaced.

    Raises:
        UsageError: Another file is there.
        MachineError: It cannot be written.
    """
    try:
        if path.exists() and MARK not in path.open(encoding="utf-8", errors="replace").read(200):
            raise UsageError(f"{path} is there already and is no report", "name another file with -o")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)  # what could not be finished
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}", "name another file with -o") from error


def _head(story: Story) -> str:
    found = story.verification
    decision = found.decision if found else None
    sentence = sentences.conclude(found) if found else "Not verified yet."
    changed = changes(found.config, story.baseline) if found and decision is Decision.BETTER else {}
    chips = "".join(
        f"<li class=changed>{escape(name)} <s>{escape(spell(story.baseline.get(name)))}</s> {escape(spell(value))}</li>"
        for name, value in changed.items()
    )
    warnings = [found.warning, _disturbed(found)] if found else []
    warning = "".join(f'<p class="warning">{escape(words)}</p>' for words in warnings if words)
    return (
        f'<header><p class="soft small">{escape(story.name)} · {escape(story.goal)} · '
        f"{story.created_at:%Y-%m-%d %H:%M} UTC</p>"
        f'<h1><span class="verdict {decision.value.lower() if decision else "none"}">'
        f"{decision.value if decision else 'UNVERIFIED'}</span> {escape(sentence)}</h1>"
        f"{f'<ul class=chips>{chips}</ul>' if chips else ''}{_numbers(story)}{warning}</header>"
    )


def _disturbed(found: Verification) -> str:
    count = sum(pair.contended for pair in found.pairs)
    whole = len(found.pairs)
    return f"Somebody else used the machine during {count} of {whole} pairs." if 2 * count > whole else ""


def _numbers(story: Story) -> str:
    found, failed = story.verification, sum(story.failures.values())
    cells = []
    if found and found.pairs:
        interval = bounds(found.gain_interval)
        cells.append(("gain", factor(found.gain_ratio), f"95 % {interval}" if interval else "no interval yet"))
        candidate = found.metrics.get(found.metric, math.nan)
        before = found.baseline_metrics.get(found.metric, math.nan)
        cells.append((found.metric, print_value(found.metric, candidate), f"was {print_value(found.metric, before)}"))
        kept = found.equivalence is not None and found.equivalence.kept and found.equivalence.judged
        rule = f"rule: {found.equivalence.tier}" if found.equivalence is not None else "not compared"
        cells.append(("outputs", "the same" if kept else "see below", rule))
    text = f"{plural(failed, 'failed', 'failed')} ({count_failures(story.failures)})" if failed else "none failed"
    cells.append(("trials", f"{len(story.tried):,}", text))
    whole_s = sum(story.phases_s.values())
    if whole_s:
        cells.append(("took", duration(whole_s), story.stopped))
    body = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(words)}</small></dd></div>"
        for name, value, words in cells
    )
    return f'<dl class="numbers">{body}</dl>'


def _proof(story: Story) -> str:
    found = story.verification
    if found is None:
        words = story.under_way or "run the study to its verdict"
        return section("Proof", "There is no verdict yet.", f"<p>{escape(words[:1].upper() + words[1:])}.</p>")
    maximize = more_is_better(found, found.metric)
    words = (
        f"Candidate and baseline measured side by side, in turn, on fresh data: {sentences.proof_sentence(found)}. "
        "The band is the interval that holds at whatever moment the comparison stopped."
        if found.pairs
        else found.reason
    )
    rows = [[escape(name), *_before_after(found, name)] for name in {**found.baseline_metrics, **found.metrics}]
    values = table(["verified", "baseline", "candidate", "times better"], rows) if rows else ""
    pairs = table(
        ["pair", "launch", "candidate", "baseline", "times better", ""],
        [
            [str(n), str(pair.launch), exact(found.metric, pair.candidate), exact(found.metric, pair.baseline),
             factor(_ratio(pair.candidate, pair.baseline, maximize)), "contended" if pair.contended else ""]
            for n, pair in enumerate(found.pairs)
        ],
    )  # fmt: skip
    raw = f"<details><summary>{plural(len(found.pairs), 'raw pair')}</summary>{pairs}</details>" if found.pairs else ""
    facts = [("why", found.reason), ("outputs", sentences.outputs_sentence(found)),
             ("memory", sentences.memory_sentence(found)),
             ("limits", ", ".join(found.violations) and _limits(found))]  # fmt: skip
    told = "".join(f"<dt>{name}</dt><dd>{escape(one_line(text))}</dd>" for name, text in facts if text)
    figure = pairs_figure(found, found.metric, maximize)
    earlier = _earlier(story)
    return section("Proof", words, figure, values, f"<dl class=facts>{told}</dl>", raw, earlier)


def _limits(found: Verification) -> str:
    return "; ".join(
        f"{limit}: {'kept' if excess <= 0 else 'BROKEN'}"
        + (f" by {percent(abs(excess), 0)}" if math.isfinite(excess) else "")
        for limit, excess in found.violations.items()
    )


def _earlier(story: Story) -> str:
    rows = [
        [f"{at:%Y-%m-%d %H:%M}", str(found.decision), factor(found.gain_ratio), bounds(found.gain_interval),
         plural(len(found.pairs), "pair")]
        for at, found in story.verifications[:-1]
    ]  # fmt: skip
    listed = table(["at (UTC)", "verdict", "gain", "95 %", ""], rows)
    return f"<details><summary>{plural(len(rows), 'earlier verification')}</summary>{listed}</details>" if rows else ""


def _before_after(found: Verification, name: str) -> list[str]:
    before, after = found.baseline_metrics.get(name, math.nan), found.metrics.get(name, math.nan)
    better = found.gain_ratio if name == found.metric else gain(after, before, more_is_better(found, name))
    return [exact(name, before), exact(name, after), factor(better) if math.isfinite(better) else "–"]


def _contributions(story: Story) -> str:
    found = story.verification
    words = "The winner against itself with one parameter set back to its default, measured side by side."
    return section("What each change is worth", words, contributions_figure(found.contributions) if found else "")


def _search(story: Story) -> str:
    legend = "".join(f'<span><i class="key {kind}"></i>{text}</span>' for kind, text in KINDS.items())
    words = "Every trial in order; the line is the best so far that keeps all limits. The proof is above."
    return section("Search", words, search_figure(story), f'<div class="legend">{legend}</div>')


def _parameters(story: Story) -> str:
    words = (
        "A line is a trial, dark ones are the best that keep all limits. Choose values to see only trials with them."
    )
    return section("Parameters", words, parallel_figure(story), slices_figure(story))


def _front(story: Story) -> str:
    words = "What one gives up for what: the marked trials are beaten by none in all objectives."
    return section("Front", words, front_figure(story))


def _bound(story: Story) -> str:
    rows = [("the baseline was bound", sentences.bound_sentence(story.baseline_diagnosis)),
            ("the best is bound", sentences.bound_sentence(story.diagnosis)),
            ("", sentences.mfu_sentence(story.baseline_diagnosis, story.diagnosis))]  # fmt: skip
    told = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows if text)
    words = "Which resource sets the pace. Roofs are what this machine reached in a measurement, not a data sheet's."
    return section("What binds it", words, f"<dl class=facts>{told}</dl>" if told else "", roofline_figure(story))


def _failures(story: Story) -> str:
    kinds: dict[str, list[Tried]] = {}
    for tried in story.tried:
        if tried.kind == "failed":
            kinds.setdefault(tried.text.partition(":")[0], []).append(tried)
    rows = [
        [escape(kind), str(len(found)), escape(one_line(found[0].text)),
         f'<code>{escape(found[0].log)}</code>']
        for kind, found in sorted(kinds.items(), key=lambda item: -len(item[1]))
    ]  # fmt: skip
    words = "By kind; the first message of each, and its log below the study's folder."
    return section("Failures", words, table(["kind", "trials", "first message", "log"], rows) if rows else "")


def _time(story: Story) -> str:
    return section("Where the time went", "Seconds of the clock, by phase.", time_figure(story.phases_s))


def _again(story: Story) -> str:
    commands = "".join(f"<h3>{escape(what)}</h3><pre>{escape(line)}</pre>" for what, line in story.commands.items())
    environment = pairs_table(story.environment)
    settings = pairs_table({**story.settings, **({"limits": ", ".join(story.limits)} if story.limits else {})})
    ceilings = pairs_table({name: _ceiling(name, value) for name, value in story.ceilings.items()})
    roofs = f"<details><summary>measured ceilings of this machine</summary>{ceilings}</details>" if ceilings else ""
    baseline = pairs_table({name: spell(value) for name, value in story.baseline.items()})
    return section(
        "How to do it again", f"From {story.source or 'its study file'}, on the machine and with the versions below.",
        commands, "<h3>Environment</h3>", environment, "<h3>Settings</h3>", settings, "<h3>Baseline</h3>", baseline,
        roofs,
    )  # fmt: skip


def _ceiling(name: str, value: float) -> str:
    if name.endswith("_flops_per_s"):
        return format_quantity(value, "FLOP/s")
    if name.endswith("_bytes_per_s"):
        return format_quantity(value, "bytes/s")
    return format_quantity(value, "s" if name.endswith("_s") else "bytes" if name.endswith("_bytes") else "")


def _ratio(candidate: float, baseline: float, maximize: bool) -> float:
    above, below = (candidate, baseline) if maximize else (baseline, candidate)
    return above / below if below else math.nan
