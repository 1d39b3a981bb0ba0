"""The pages of the dashboard: a list of studies and services, and for each a page that follows it."""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from autotuner.report.html import table
from autotuner.report.overview import Row
from autotuner.report.service_data import ServiceRow, ServiceStory
from autotuner.report.service_page import service_body, services_table
from autotuner.report.study_data import Story
from autotuner.report.study_page import page
from autotuner.report.text import factor
from autotuner.types import Decision

_HERE = Path(__file__)
_STYLES = ("profile.css", "study.css", "service.css")
_STYLE = "".join(_HERE.with_name(name).read_text(encoding="utf-8") for name in _STYLES)
_LIVE = _HERE.with_name("dashboard.js").read_text(encoding="utf-8")
_STUDY = _HERE.with_name("study.js").read_text(encoding="utf-8")
SCRIPTS = (_LIVE, _STUDY)


def list_page(rows: Sequence[Row], under_way: Mapping[str, str], services: Sequence[ServiceRow], state: str) -> str:
    """Every study of the record, newest first, and every service that is kept tuned.

    Args:
        rows: Of the overview.
        under_way: `{study: what it was last seen at}`.
        services: In any order.
        state: Of the record when it was read: another one is news.
    """
    cells = [_cells(row, under_way.get(row.name)) for row in reversed(rows)]
    body = table(["study", "started", "trials", "verdict", "gain", "objective"], cells, "rows studies")
    if not rows:
        body = '<p class="soft">No studies yet: <code>autotune study start FILE</code></p>'
    main = f"<header><h1>Studies</h1></header><section>{body}</section>"
    if services:
        main += f"<header><h1>Services</h1></header><section>{services_table(services)}</section>"
    return _page("autotune", "/", state, f"<main>{main}</main>")


def service_page(story: ServiceStory, state: str) -> str:
    """A service's page that follows its service; `state` as in `list_page`."""
    name = story.row.name
    body = f'<nav><a href="/">all services</a></nav>{service_body(story)}'
    return _page(f"{name} · autotune", f"/service/{quote(name)}/body", state, body)


def _page(title: str, follow: str, state: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f'<body data-follow="{escape(follow)}" data-state="{escape(state)}">{body}'
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
