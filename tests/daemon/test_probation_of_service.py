"""Whose failures a window of a real service counts, by the phase that its journal tells."""

import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.daemon.machine import begin
from autotuner.daemon.service import opened
from autotuner.daemon.spec import load_service
from autotuner.types import Phase, Window

sys.path.insert(0, str(Path(__file__).parent))
from test_service import World


@pytest.mark.parametrize(("phase", "promoted"), [(Phase.CANARY, False), (Phase.PROBATION, True)])
def test_only_in_probation_the_new_one_serves_stably(tmp_path, monkeypatch, phase, promoted):
    world, asked, now = World(tmp_path, "http://127.0.0.1:1"), [], datetime.now(UTC)

    def window(promoted=False):
        asked.append(promoted)
        return Window({}, {})

    with opened(load_service(tmp_path / "daemon.yaml"), world.db) as service:
        monkeypatch.setattr(service._measuring, "window", window)
        token = service.journal.acquire("me", time.time(), 30.0)
        service.journal.enter(token, replace(begin("b0", now), phase=phase), {}, now)
        assert service._world().window() == Window({}, {})
    assert asked == [promoted]
