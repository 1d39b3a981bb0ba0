"""Services in the dashboard, a process of its own: what is shown, that nothing of it is code, and that it follows."""

import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from autotuner.store import open_record
from autotuner.types import CanaryVerdict, Deployment, Estimate, Phase, Ruling, ServiceState, Window

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from browser import Checker, needs_browser
from test_dashboard import Page, ask, browser, running, signed_in

BEGUN = datetime(2026, 11, 1, 12, tzinfo=UTC)
EVIL = "<script>alert(1)</script><b onclick=x>'\"&\x1b[31m\nend"
NAN = float("nan")


def state(phase, minutes, **more):
    more = {"wanted": Deployment("aaaa"), "reached": True, "last_good": "aaaa", "reason": "why", **more}
    return ServiceState(phase, since=BEGUN + timedelta(minutes=minutes), **more)


def window(journal, token, of, steady, beside):
    told = Window({"latency_p95_s": steady, "throughput_requests_per_s": 9.0}, {"latency_p95_s": beside})
    journal.append(token, "window", {"since": of.since, **{name: getattr(told, name) for name in told.__slots__}})


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """`chat` was promoted once and is in its second canary, at 10 %; `quiet` was only met."""
    path = str(tmp_path_factory.mktemp("user") / "record.db")
    with open_record(path) as record:
        record.journal("quiet").enter(record.journal("quiet").acquire("here", 0, 1), state(Phase.WATCHING, 0), {})
        journal = record.journal("chat")
        token = journal.acquire("here/1", BEGUN.timestamp(), 1e9)
        old = state(Phase.CANARY, 1, wanted=Deployment("aaaa", "0ld0", 10), candidate="0ld0", cycle=1)
        journal.enter(token, old, {"event": "tuned"})
        window(journal, token, old, 0.5, 0.5)
        gains = {"latency_p95_s": Estimate(2.0, 1.9, 2.125)}
        verdict = CanaryVerdict(Ruling.PASS, "it is better", True, gains, 16)
        journal.enter(token, state(Phase.PROMOTING, 2, cycle=1), {"event": "ruled", "verdict": verdict})
        new = state(Phase.CANARY, 3, wanted=Deployment("aaaa", "bbbb", 10), candidate="bbbb", cycle=2, reason=EVIL)
        journal.enter(token, new, {"event": "tuned"})
        journal.tell("freeze", {"by": EVIL})
        for steady, beside in ((0.2, 0.1), (0.21, NAN), (0.22, 0.11)):
            window(journal, token, new, steady, beside)
    return path


@pytest.fixture(scope="module")
def address(db):
    with running(db) as url:
        yield url


def test_the_list_has_every_service(address):
    base, cookie = signed_in(address)
    _, _, text = ask(f"{base}/", Cookie=cookie)
    assert "No studies yet" in text
    assert '<a href="/service/chat">chat</a>' in text
    assert '<a href="/service/quiet">quiet</a>' in text
    assert "aaaa, and 10 % to bbbb" in text
    assert "2026-11-01 12:03:00" in text


def test_a_page_shows_decisions_and_the_windows_of_the_newest_candidate(address):
    base, cookie = signed_in(address)
    status, headers, text = ask(f"{base}/service/chat", Cookie=cookie)
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    Checker().feed(text)
    assert "latency_p95_s 2.000× [1.900, 2.125]" in text
    assert "promoting after ruled: why" in text
    assert "Canary, 10 % of the traffic" in text
    assert "0ld0)" not in text, "the windows of an older candidate are gone"
    labels = re.findall(r'aria-label="(\S+) of what serves \(aaaa\) and the candidate \(bbbb\), 3 windows"', text)
    assert labels == ["latency_p95_s", "throughput_requests_per_s"]
    lines = re.findall(r'<path class="(steady|best)" d="([^"]+)"', text)
    assert [(kind, path.count("L")) for kind, path in lines[:3]] == [("steady", 2), ("best", 0), ("best", 0)], "a gap"
    titles = re.findall(r"<title>(window .*?)</title>", text)
    assert titles[:5] == [
        "window 1, what serves (aaaa): 200 ms", "window 2, what serves (aaaa): 210 ms",
        "window 3, what serves (aaaa): 220 ms", "window 1, the candidate (bbbb): 100 ms",
        "window 3, the candidate (bbbb): 110 ms",
    ]  # fmt: skip
    _, _, quiet = ask(f"{base}/service/quiet", Cookie=cookie)
    assert "<svg" not in quiet
    assert "watching" in quiet


def test_nothing_that_was_written_down_is_code(address):
    base, cookie = signed_in(address)
    for place in ("", "service/chat", "service/chat/body"):
        _, _, text = ask(f"{base}/{place}", Cookie=cookie)
        assert "<script>alert" not in text
        assert "onclick=x" not in text.replace("&lt;b onclick=x&gt;", "")
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "\x1b" not in text


def test_it_only_shows_and_only_to_whom_it_may(address):
    base, cookie = signed_in(address)
    assert ask(f"{base}/service/chat")[0] == 401
    assert ask(f"{base}/service/chat", Cookie=cookie, Host="evil.example")[0] == 403
    assert ask(f"{base}/service/chat", Cookie=cookie, Origin="http://evil.example")[0] == 403
    assert ask(f"{base}/service/chat", "POST", Cookie=cookie)[0] == 405
    for name in ("none", "..%2Fx", "%3Cscript%3E"):
        status, headers, _ = ask(f"{base}/service/{name}", Cookie=cookie)
        assert (status, headers["Content-Type"]) == (404, "text/plain; charset=utf-8")


async def follow(url, port, db):
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (target,) = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            tab = Page(socket)
            await tab.call("Page.navigate", url=url)
            await tab.until("document.querySelector('a[href=\"/service/chat\"]') !== null")
            await tab.value("document.querySelector('a[href=\"/service/chat\"]').click()")
            dots = "document.querySelectorAll('svg circle.ok').length"
            await tab.until(f"{dots} === 2")
            await tab.value("window.stayed = true")
            with open_record(db) as record:
                journal = record.journal("chat")
                token = journal.acquire("here/1", BEGUN.timestamp(), 1e9)
                window(journal, token, journal.state(), 0.2, 0.1)
            await tab.until(f"{dots} === 3")
            assert await tab.value("window.stayed"), "the page was not loaded anew"
            width = await tab.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert width == 0, "nothing sticks out of the page"


@needs_browser
def test_a_page_follows_its_service(address, db, tmp_path):
    with browser(tmp_path) as port:
        asyncio.run(follow(address, port, db))
