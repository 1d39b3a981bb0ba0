"""Pieces of a page that every section shares: headings, tables, numbers."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from autotuner.report.text import print_value


def section(heading: str, words: str, *content: str) -> str:
    """A card with a heading; nothing at all where there is no content."""
    if not any(content):
        return ""
    return f'<section><h2>{escape(heading)}</h2><p class="soft small">{escape(words)}</p>{"".join(content)}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "rows") -> str:
    """Rows of HTML under titles of text."""
    titles = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def pairs_table(values: Mapping[str, object]) -> str:
    """Names and values."""
    rows = [[escape(str(key)), escape(str(value))] for key, value in values.items()]
    return table(["", ""], rows, "pairs") if rows else ""


def exact(metric: str, value: float) -> str:
    """A value as people read it, the whole number behind it."""
    return f'<span data-v="{value!r}" title="{value!r}">{escape(print_value(metric, value))}</span>'
