"""The table of all trials: every one in a row, to be sorted, found and chosen by `study.js`."""

import json
import math
from html import escape

from autotuner.report.html import section
from autotuner.report.study_data import Story, Tried
from autotuner.report.text import duration, factor, one_line, percent, spell

KINDS = {"winner": "verified", "ok": "measured", "violated": "breaks a limit", "failed": "failed"}


def trials_table(story: Story) -> str:
    """The table, and what filters it."""
    head = ["trial", "changed", story.metric, "× baseline", "±", "bound by", "took", "origin", "result"]
    titles = "".join(
        f'<th scope="col" aria-sort="{"none" if i else "ascending"}"><button type="button">{escape(text)}</button></th>'
        for i, text in enumerate(head)
    )
    body = "".join(_row(tried, story) for tried in story.tried)
    options = "".join(f'<option value="{kind}">{text}</option>' for kind, text in KINDS.items())
    bar = (
        '<div class="filter"><label>find <input type="search" placeholder="batch_size=16"></label>'
        f'<label>show <select><option value="">all</option>{options}</select></label>'
        '<button type="button" class="reset">reset</button><output aria-live="polite"></output></div>'
    )
    listed = (
        f'<div class="scroll tall"><table class="rows trials"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    return section(
        "Trials", "Each with what came of it. Click a heading to sort, a row to find it in the drawings.", bar, listed
    )


def _row(tried: Tried, story: Story) -> str:
    changed = " ".join(f"{name}={spell(value)}" for name, value in tried.changed.items()) or "baseline"
    result = tried.text or KINDS[tried.kind]
    pairs = [f"{name}={spell(value)}" for name, value in tried.config.items()]
    whole = " ".join(pairs)
    reason = f'<small title="{escape(tried.reason)}">{escape(tried.reason)}</small>' if tried.reason else ""
    cells: list[tuple[float | str, str]] = [
        (tried.number, str(tried.number)),
        ("", f'<span title="{escape(whole)}">{escape(changed)}</span>{reason}'),
        (tried.value, story.print(tried.value) if math.isfinite(tried.value) else "–"),
        (story.gain(tried), factor(story.gain(tried)) if math.isfinite(story.gain(tried)) else "–"),
        (tried.precision_ratio, percent(tried.precision_ratio) if math.isfinite(tried.precision_ratio) else "–"),
        ("", tried.bound.replace("_", " ")),
        (tried.seconds, duration(tried.seconds)),
        ("", tried.origin),
        ("", f'<span title="{escape(one_line(result))}">{escape(one_line(result))}</span>'),
    ]
    body = "".join(f"<td{_sorted_by(value)}>{words}</td>" for value, words in cells)
    listed = escape(json.dumps(pairs, ensure_ascii=False))
    data = f'data-trial="{tried.number}" data-kind="{tried.kind}" data-words="{listed}"'
    return f'<tr class="{tried.kind}" {data}>{body}</tr>'


def _sorted_by(value: float | str) -> str:
    """The exact number behind a cell; what is no number sorts by its words."""
    return "" if value == "" else f' data-v="{value!r}"' if math.isfinite(float(value)) else ' data-v=""'
