"""A run of `autotune bench` as files that CI reads: JUnit XML and Markdown."""

from xml.etree import ElementTree

from autotuner.report.bench import base_name, gain_text, headline, sides, trend_rows
from autotuner.report.text import one_line
from autotuner.types import BenchDecision, BenchReport, BenchRun

_UNDECIDED = (BenchDecision.UNCLEAR, BenchDecision.INVALID)


def fails(run: BenchRun, strict: bool = False) -> bool:
    """Whether the build fails: a regression, a run without any number, and, where asked, what is not known."""
    unknown = run.decision in _UNDECIDED
    return run.decision is BenchDecision.REGRESSION or (unknown and (strict or bool(run.failure)))


def junit(report: BenchReport, strict: bool = False) -> str:
    """One suite a file, one case for the objective and one for each limit; what is not known counts as skipped.

    The common part of the format: https://github.com/testmoapp/junitxml.
    """
    run = report.run
    assert run is not None, "a run was measured"
    seconds = f"{report.duration_s:.3f}"
    suite = ElementTree.Element("testsuite", name=f"autotune bench {report.key.file}", time=seconds)
    if run.created_at is not None:
        suite.set("timestamp", f"{run.created_at:%Y-%m-%dT%H:%M:%S}")
    properties = ElementTree.SubElement(suite, "properties")
    facts = {"branch": run.key.branch, "revision": run.revision, "base": run.base_revision, "verdict": run.decision}
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", name=name, value=one_line(value))
    _objective_case(suite, report, run, strict)
    for limit in run.violations:
        case = _case(suite, report, f"limit {limit}", "0")
        if limit in run.broken:
            _say(case, "failure", run, run.reason)
        elif run.violations[limit] > 0:
            _say(case, "skipped", run, "broken, but not by this revision as far as is known")
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped", "tests": ""}
    counts = {name: str(len(suite.findall(f"testcase/{kind}" if kind else "testcase"))) for name, kind in kinds.items()}
    suite.attrib.update(counts)
    root = ElementTree.Element("testsuites", {"name": "autotune bench", "time": seconds, **counts})
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _objective_case(suite: ElementTree.Element, report: BenchReport, run: BenchRun, strict: bool) -> None:
    case = _case(suite, report, run.key.metric, f"{report.duration_s:.3f}")
    slower = run.gain_interval is not None and run.gain_interval[1] < 1 - report.margin
    if fails(run, strict) and (not run.broken or slower):
        _say(case, "failure", run, f"{headline(report)} {run.reason}")
    elif run.decision in _UNDECIDED:
        _say(case, "skipped", run, f"{headline(report)} {run.reason}")
    else:
        ElementTree.SubElement(case, "system-out").text = one_line(f"{run.decision}: {run.reason}")


def _case(suite: ElementTree.Element, report: BenchReport, name: str, seconds: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=report.key.file, name=one_line(name), time=seconds)


def _say(case: ElementTree.Element, kind: str, run: BenchRun, text: str) -> None:
    said = ElementTree.SubElement(case, kind, message=one_line(text))
    if kind != "skipped":
        said.set("type", str(run.decision))
        said.text = one_line(text)


def markdown(report: BenchReport) -> str:
    """For the summary of a job or a comment on a pull request."""
    run = report.run
    assert run is not None, "a run was measured"
    lines = [f"### autotune bench: {run.decision}", "", _text(headline(report)), ""]
    if run.metrics:
        lines += [f"| metric | {base_name(run)} | now | gain |", "|---|--:|--:|--:|"]
        lines += [f"| {' | '.join(map(_text, cells))} |" for cells in sides(report)]
        lines.append("")
    rows = [("why", run.reason)]
    if run.gain_ratio is not None and run.gain_interval is not None:
        rows.append(("gain", gain_text(run)))
    rows += trend_rows(report.trend, report.key.metric, report.history, terminal=True)
    rows += [("note", note) for note in report.notes]
    lines += [f"- **{name}**: {_text(text)}" for name, text in rows]
    where = f"`{report.key.file}`, branch `{report.key.branch}`, revision `{run.revision or 'none'}`"
    base = f", against `{run.base_revision}`" if run.base_revision else ""
    return "\n".join([*lines, "", f"{where}{base}", ""])


def _text(text: str) -> str:
    """Other people's words, without what Markdown or HTML would take for its own."""
    plain = one_line(text)
    for char in "\\`*_|<>[]#":
        plain = plain.replace(char, f"\\{char}")
    return plain
