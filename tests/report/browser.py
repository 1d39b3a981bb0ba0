"""A page as a browser sees it, and as HTML: for the tests of every page."""

import shutil
import subprocess
from html.parser import HTMLParser

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
VOID = {"meta", "br", "rect", "path", "circle", "input"}


class Checker(HTMLParser):
    """Every tag is closed in order, and nothing is asked of the network."""

    def __init__(self):
        super().__init__()
        self.open, self.far = [], []

    def handle_starttag(self, tag, attributes):
        self.far += [v for name, v in attributes if name in ("src", "srcset", "action") or "//" in (v or "")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def browse(tmp_path, *options, html):
    """What a browser makes of a page: its output, and what it complained of."""
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    argv = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'browser'}", *options, path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
