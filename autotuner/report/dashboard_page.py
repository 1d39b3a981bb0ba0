"""The pages of the dashboard: a list of studies, and a study's page that follows its study."""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from autotuner.report.html import table
from autotuner.report.overview import Row
from autotuner.report.study_data import Story
from autotuner.report.study_page import page
from autotuner.report.text import factor
from autotuner.types import Decision

_HERE = Path(__file__)
_STYLE = "".join(_HERE.with_name(name).read_text(encoding="utf-8") for name in ("profile.css", "study.css"))
_LIVE = _HERE.with_name("dashboard.js").read_text(encoding="utf-8")
_STUDY = _HERE.with_name("study.js").read_text(encoding="utf-8")
SCRIPTS = (_LIVE, _STUDY)


def list_page(rows: Sequence[Row], under_way: Mapping[str, str], state: str) -> str:
    """Every study of the record, newest first.

    Args:
        rows: Of the overview.
        under_way: `{study: what it was last seen at}`.
        state: Of the record when it was read: another one is news.
    """
    cells = [_cells(row, under_way.get(row.name)) for row in reversed(rows)]
    body = table(["study", "started", "trials", "verdict", "gain", "objective"], cells, "rows studies")
    if not rows:
        body = '<p class="soft">No studies yet: <code>autotune study start FILE</code></p>'
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>autotune</title><style>{_STYLE}</style></head>\n"
        f'<body data-follow="/" data-state="{escape(state)}"><main>'
        f"<header><h1>Studies</h1></header><section>{body}</section></main>"
        f"<script>{_LIVE}</script></body></html>\n"
    )


def study_page(story: Story, state: str) -> str:
    """A study's page that follows its study; `state` as in `list_page`."""
    text = page(story)
    back = f'<body data-follow="/study/{quote(story.name)}/body" data-state="{escape(state)}">'
    back += '<nav><a href="/">all studies</a></nav>'
    return text.replace("<body>", back).replace("</body>", f"<script>{_LIVE}</script></body>")


def study_body(story: Story) -> str:
    """What changes of it."""
    found = re.search(r"<main>.*</main>", page(story), re.DOTALL)
    assert found is not None
    return found[0]


def _cells(row: Row, now: str | None) -> list[str]:
    ratio = row.gain_ratio if row.gain_ratio is not None else math.nan
    told = row.decision.value if row.decision else "measuring" if now else row.state
    kind = row.decision.value.lower() if row.decision else "none"
    running = f'<small class="soft"> {escape(now)}</small>' if now else ""
    return [
        f'<a href="/study/{quote(row.name)}">{escape(row.name)}</a>{running}',
        f"{row.created_at:%Y-%m-%d %H:%M}",
        f"{row.trials:,}",
        f'<span class="verdict {kind}">{escape(told)}</span>',
        factor(ratio) if row.decision not in (None, Decision.INVALID) else "",
        escape(row.metric),
    ]
