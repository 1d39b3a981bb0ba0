"""SIGKILL at any moment: nothing acknowledged is lost, nothing is half-written."""

import os
import random
import signal
import sqlite3
import time

from autotuner.store import open_record


def test_killed_at_any_moment_nothing_acknowledged_is_lost(path, spec, tools):
    with open_record(str(path)) as record:
        record.create(spec, "tiny").append_trial(tools.trial(0))
    draw, kept = random.Random(11), 1
    for _ in range(25):
        acknowledged, told = os.pipe()

        def run(first=kept, told=told) -> None:
            with open_record(str(path)) as record:
                study = record.study("tiny")
                for number in range(first, first + 10_000):
                    study.append_trial(tools.trial(number))
                    os.write(told, number.to_bytes(4))

        pid = tools.elsewhere(run)
        os.close(told)
        seen = os.read(acknowledged, 4)
        time.sleep(draw.uniform(0.0, 0.06))
        os.kill(pid, signal.SIGKILL)
        assert tools.wait(pid) == -signal.SIGKILL
        while chunk := os.read(acknowledged, 4096):
            seen += chunk
        os.close(acknowledged)
        with open_record(str(path)) as record:
            study = record.study("tiny")
            now = study.count()
            assert now - kept - len(seen) // 4 in (0, 1)  # the last one may be on the disk and not yet acknowledged
            assert study.last(now - kept) == [tools.trial(number) for number in range(kept, now)]
            kept = now
    assert kept > 25
    with open_record(str(path)) as record:
        assert record.study("tiny").trials() == [tools.trial(number) for number in range(kept)]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_killed_while_the_file_is_created_it_can_be_created_again(tmp_path, spec, tools):
    draw, partial = random.Random(3), 0
    for attempt in range(8):
        path = tmp_path / f"{attempt}.db"

        def run(path=path) -> None:
            with open_record(str(path)) as record:
                record.create(spec, "tiny")

        pid = tools.elsewhere(run)
        time.sleep(draw.uniform(0.0, 0.15))
        os.kill(pid, signal.SIGKILL)
        partial += tools.wait(pid) != 0
        with open_record(str(path)) as record:
            assert record.names() in ([], ["tiny"])
    assert partial
