"""The project's log records leave with the ids of the current span; stderr stays as it was."""

import logging
import os
import subprocess
import sys

import pytest

from autotuner import telemetry

LOGGER = logging.getLogger("autotuner.executors.server")


def test_log_records_carry_the_ids_of_their_span(monkeypatch, tap, attributes):
    with tap() as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", got.address)
        with telemetry.session() as delivery, telemetry.span("tune"):
            LOGGER.warning("process %d cannot be killed", 7)
            with telemetry.span("trial"):
                telemetry.log("trial 3: measured", {"autotune.trial": 3})
                try:
                    raise OSError("a secret")
                except OSError:
                    LOGGER.exception("it failed")
            logging.getLogger("somebody.else").error("not ours")
    assert (delivery.spans_sent, delivery.logs_sent, delivery.loss) == (2, 3, "")
    tune, trial = got.span("tune"), got.span("trial")
    killed, measured, failed = sorted(got.logs, key=lambda record: record.time_unix_nano)
    assert killed.body.string_value == "process 7 cannot be killed"
    assert (killed.severity_number, killed.severity_text) == (13, "WARN")
    assert (killed.trace_id, killed.span_id) == (tune.trace_id, tune.span_id)
    assert attributes(killed)["autotune.logger"] == "autotuner.executors.server"
    assert (measured.severity_text, attributes(measured)) == ("INFO", {"autotune.trial": 3})
    assert (measured.trace_id, measured.span_id) == (trial.trace_id, trial.span_id)
    assert (failed.severity_text, attributes(failed)["exception.type"]) == ("ERROR", "OSError")
    assert "a secret" not in str(failed)


def test_outside_of_a_span_a_log_record_belongs_to_the_trace_that_we_continue(monkeypatch, server):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with server(200) as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{got.address}/v1/logs")
        monkeypatch.setenv("TRACEPARENT", f"00-{trace}-{span}-01")
        with telemetry.session():
            LOGGER.warning("early")
    (record,) = got.logs
    assert (record.trace_id.hex(), record.span_id.hex()) == (trace, span)


@pytest.mark.parametrize(
    ("configured", "expected"), [("", "plain\n"), ("logging.basicConfig(format='root: %(message)s')", "root: plain\n")]
)
def test_what_goes_to_stderr_does_not_change(server, configured, expected):
    """With a handler of ours attached, `logging` no longer writes by its last resort; we do."""
    program = f"""
import logging
{configured}
from autotuner import telemetry
with telemetry.session() as delivery:
    logging.getLogger("autotuner.x").warning("plain")
    logging.getLogger("autotuner.x").info("too quiet")
    telemetry.log("never on stderr")
print(delivery.logs_sent)
"""
    with server(200) as got:
        for setting, sent in (({}, 0), ({"OTEL_EXPORTER_OTLP_ENDPOINT": got.address}, 2)):
            run = subprocess.run(
                [sys.executable, "-c", program], env=os.environ | setting, capture_output=True, text=True
            )
            assert run.stderr == expected
            assert run.stdout == f"{sent}\n"


def test_nothing_of_ours_stays_behind(monkeypatch, server):
    ours, sdk = logging.getLogger("autotuner"), logging.getLogger("opentelemetry")
    before = (list(ours.handlers), ours.level, sdk.level)
    with server(200) as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", got.address)
        with telemetry.session():
            assert len(ours.handlers) == len(before[0]) + 1
    assert (ours.handlers, ours.level, sdk.level) == before
