"""The dashboard as a process of its own, asked as a browser, and as those who should not, would ask."""

import asyncio
import base64
import hashlib
import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import aiohttp
import pytest

from autotuner.store import open_record

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from browser import BROWSER, needs_browser
from test_study_page import INFERENCE, fill, trial_of

from autotuner.spec import load, restore

PROGRAM = "from autotuner.cli.main import app; app()"


@pytest.fixture
def db(tmp_path):
    path = str(tmp_path / "record.db")
    with open_record(path) as record:
        fill(record, 20)
    return path


@contextmanager
def running(db, *words):
    """The address that it prints."""
    argv = [sys.executable, "-c", PROGRAM, "dashboard", "--db", db, *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert process.returncode == 0


def ask(url, method="GET", **headers):
    """(status, headers, text) without following; the token's cookie is taken along."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def signed_in(url):
    """Where it is, and the cookie that opens it."""
    status, headers, _ = ask(url)
    assert status == 303
    assert headers["Location"] == "/"
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]
    return url.partition("?")[0].rstrip("/"), headers["Set-Cookie"].partition(";")[0]


@pytest.fixture
def served(db):
    with running(db) as url:
        yield signed_in(url)


def test_the_list_and_a_study(served):
    base, cookie = served
    status, headers, text = ask(f"{base}/", Cookie=cookie)
    assert status == 200
    assert '<a href="/study/inference">inference</a>' in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    status, _, text = ask(f"{base}/study/inference", Cookie=cookie)
    assert status == 200
    assert "12 raw pairs" in text
    status, headers, text = ask(f"{base}/study/nothing", Cookie=cookie)
    assert (status, text.startswith("there is no study 'nothing'")) == (404, True)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    _, headers, _ = ask(f"{base}//evil.example/?token={cookie.partition('=')[2]}")
    assert headers["Location"] == "/evil.example/"


def test_who_may_not_look(served):
    base, cookie = served
    port = base.rpartition(":")[2]
    assert ask(f"{base}/")[0] == 401
    assert ask(f"{base}/?token=guess")[0] == 401
    assert ask(f"{base}/", Cookie=f"{cookie.partition('=')[0]}=guess")[0] == 401
    assert ask(f"{base}/", Cookie=f"{cookie.partition('=')[0]}=\xff")[0] == 401
    assert ask(f"{base}/", Cookie=cookie, Host=f"evil.example:{port}")[0] == 403
    assert ask(f"{base}/", Cookie=cookie, Host="evil.example")[0] == 403
    assert ask(f"{base}/changes", Cookie=cookie, Origin="http://evil.example")[0] == 403
    assert ask(f"{base}/", Cookie=cookie, Origin="null")[0] == 403
    for method in ("POST", "PUT", "DELETE"):
        assert ask(f"{base}/study/inference", method, Cookie=cookie)[0] == 405
    assert ask(f"{base}/", Cookie=cookie, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200


def test_two_of_one_machine_keep_their_cookies_apart(db):
    with running(db) as one, running(db) as other:
        cookies = [signed_in(url)[1] for url in (one, other)]
        for base in (url.partition("?")[0] for url in (one, other)):
            assert ask(base, Cookie="; ".join(cookies))[0] == 200


def test_a_record_that_another_process_locks_keeps_nobody_else_waiting(db, served):
    base, cookie = served
    with closing(sqlite3.connect(db, isolation_level=None)) as connection, ThreadPoolExecutor() as pool:
        connection.execute("BEGIN EXCLUSIVE")
        waiting = pool.submit(ask, f"{base}/", Cookie=cookie)
        time.sleep(0.5)
        assert ask(f"{base}/")[0] == 401
        assert not waiting.done()
        connection.execute("ROLLBACK")
        assert waiting.result()[0] == 200


def test_only_this_machine_is_listened_to(served):
    base, _ = served
    done = subprocess.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True, check=False)
    port = f"{int(base.rpartition(':')[2]):04X}"
    listening = [line.split()[1] for line in done.stdout.splitlines() if f":{port} " in line and " 0A " in line]
    assert listening == [f"0100007F:{port}"]


def test_a_record_that_is_not_there_or_a_port_that_is_taken(tmp_path, db):
    argv = [sys.executable, "-c", PROGRAM, "dashboard", "--db"]
    done = subprocess.run([*argv, tmp_path / "none.db"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    with running(db) as url:
        port = url.partition("?")[0].rstrip("/").rpartition(":")[2]
        done = subprocess.run([*argv, db, "--port", port], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert f"cannot listen on port {port}" in done.stderr


def test_optuna_dashboard_that_is_not_installed(db):
    missing = f"import sys; sys.modules['optuna_dashboard'] = None; {PROGRAM}"
    argv = [sys.executable, "-c", missing, "dashboard", "--db", db, "--optuna", "inference"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "optuna-dashboard is not installed — pip install optuna-dashboard" in done.stderr


def test_optuna_dashboard_shows_a_copy_to_whom_it_may(db):
    before = Path(db).read_bytes()
    with running(db, "--optuna", "inference") as url:
        base, cookie = signed_in(url)
        status, _, text = ask(f"{base}/api/studies", Cookie=cookie)
        (study,) = json.loads(text)["study_summaries"]
        assert (status, study["study_name"]) == (200, "inference")
        _, _, text = ask(f"{base}/api/studies/{study['study_id']}", Cookie=cookie)
        assert len(json.loads(text)["trials"]) == 20
        assert ask(f"{base}/api/studies")[0] == 401
        assert ask(f"{base}/api/studies", Cookie=cookie, Host="evil.example")[0] == 403
        assert ask(f"{base}/api/studies/{study['study_id']}", "DELETE", Cookie=cookie)[0] == 405
        assert ask(f"{base}/api/nothing", Cookie=cookie)[0] == 404
    assert Path(db).read_bytes() == before


class Page:
    """A page in a real browser, asked over its debugging socket."""

    def __init__(self, socket):
        self._socket, self._number = socket, 0

    async def call(self, method, **parameters):
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == self._number:
                return answer["result"]

    async def value(self, expression):
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression, limit_s=30):
        deadline_s = time.monotonic() + limit_s
        while not await self.value(expression):
            assert time.monotonic() < deadline_s, expression
            await asyncio.sleep(0.1)


@contextmanager
def browser(tmp_path):
    folder, place = tmp_path / "browser", tmp_path / "browser" / "DevToolsActivePort"
    argv = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}",
            "about:blank"]  # fmt: skip
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline_s = time.monotonic() + 60
            while not (place.exists() and "\n" in place.read_text()) and time.monotonic() < deadline_s:
                time.sleep(0.05)
            yield place.read_text().split()[0]
        finally:
            process.terminate()


async def follow(url, port, db):
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (target,) = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            tab = Page(socket)
            await tab.call("Page.navigate", url=url)
            await tab.until(
                "document.readyState === 'complete' && document.querySelector('h1')?.textContent === 'Studies'"
            )
            assert "token" not in await tab.value("location.href")
            await tab.value("document.querySelector('a[href=\"/study/inference\"]').click()")
            rows = "document.querySelectorAll('table.trials tbody tr').length"
            await tab.until(f"{rows} === 20")
            await tab.value("window.stayed = true")
            await tab.value("document.querySelector('.filter select').value = 'failed'")
            await tab.value("document.querySelector('.filter select').dispatchEvent(new Event('change'))")
            await tab.value("document.querySelectorAll('table.trials th button')[2].click()")
            await tab.value("document.querySelector('.filter input').focus()")
            with open_record(db) as record:
                study = record.study("inference")
                study.append_trial(trial_of(20, restore(study.spec()).baseline, random.Random(1)))
            await tab.until(f"{rows} === 21")
            assert await tab.value("window.stayed"), "the page was not loaded anew"
            assert await tab.value("document.querySelector('.filter select').value") == "failed"
            assert await tab.value("document.activeElement === document.querySelector('.filter input')")
            assert await tab.value("document.querySelectorAll('table.trials th')[2].ariaSort") == "ascending"
            count = await tab.value("document.querySelector('.filter output').textContent")
            assert count.endswith("of 21"), "what came is as lively as what was there"
            assert not count.startswith("21 ")


@needs_browser
def test_a_page_follows_its_study_without_being_loaded_anew(db, tmp_path):
    with running(db) as url, browser(tmp_path) as port:
        asyncio.run(follow(url, port, db))


async def look(url, port):
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (target,) = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            tab = Page(socket)
            await tab.call("Page.navigate", url=url)
            await tab.until("document.body?.innerText.includes('inference')")
            study = await tab.value("document.querySelector('a[href*=\"/studies/\"]').href")
            await tab.call("Page.navigate", url=study)
            await tab.until("document.querySelectorAll('.js-plotly-plot .trace').length > 0")


@needs_browser
def test_optuna_dashboard_runs_behind_our_guard(db, tmp_path):
    with running(db, "--optuna", "inference") as url, browser(tmp_path) as port:
        asyncio.run(look(url, port))


def test_the_policy_lets_our_scripts_run_and_no_other(served):
    base, cookie = served
    _, headers, text = ask(f"{base}/study/inference", Cookie=cookie)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = set(re.findall(r"'sha256-([^']+)'", headers["Content-Security-Policy"]))
    assert {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts} == allowed


def test_what_is_measured_now_is_said(tmp_path):
    db = str(tmp_path / "record.db")
    with open_record(db) as record:
        study = record.create(load(INFERENCE), "inference")
        study.append_event("started")
        study.append_event("proposed", {"trial": 0, "reason": "it is the baseline"})
    with running(db) as url:
        base, cookie = signed_in(url)
        assert "trial 0 is being measured" in ask(f"{base}/", Cookie=cookie)[2]
        with open_record(db) as record:
            record.study("inference").append_trial(trial_of(0, load(INFERENCE).baseline, random.Random(0)))
        assert "is being measured" not in ask(f"{base}/", Cookie=cookie)[2]
