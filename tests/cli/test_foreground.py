"""A study in the foreground: who watches, and how an interruption ends. The study is scripted, the process is real."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pexpect
import pytest

HERE = Path(__file__).parents[1] / "report"
PROGRAM = textwrap.dedent(
    f"""
    import sys, time
    sys.path.insert(0, {str(HERE)!r})
    import scripted_study as script
    import typer
    from autotuner.cli.exits import Commands
    from autotuner.cli.run import exit_code, run
    from autotuner.errors import MachineError
    from autotuner.events import StudyStarted

    app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback()
    def root() -> None: ...

    @app.command()
    def study(how: str, as_json: bool = typer.Option(False, "--json")) -> None:
        def call(listener):
            if how == "early":
                print("ready", flush=True)
                time.sleep(60)
            for event in script.events():
                listener(event)
                if how == "slow" and getattr(event, "number", None) == 4:
                    print("ready", flush=True)
                    time.sleep(60)
                if how == "broken" and getattr(event, "number", None) == 4:
                    raise MachineError("the disk is full", "make room")
            return script.SUMMARY
        raise typer.Exit(exit_code(run(call, "my.db", as_json)))

    app()
    """
)


def command(*words):
    return [sys.executable, "-c", PROGRAM, "study", *words]


def play(*words):
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=60)


def test_a_pipe_gets_lines_on_stderr_and_the_result_on_stdout():
    done = play("quick")
    assert done.returncode == 0
    assert done.stderr.startswith("study qwen3-cpu: maximize")
    assert done.stdout.startswith("BETTER  ")
    assert "autotune export qwen3-cpu --to env --db my.db" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_json_on_stdout_is_one_object_and_events_are_on_stderr():
    done = play("quick", "--json")
    assert json.loads(done.stdout)["verdict"] == "BETTER"
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()][-1] == "study_ended"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_what_is_kept_and_how_to_go_on(number):
    with subprocess.Popen(command("slow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as study:
        assert study.stdout.readline() == "ready\n"
        study.send_signal(number)
        _, errors = study.communicate(timeout=30)
    assert study.returncode == 130
    assert errors.splitlines()[-1] == ("interrupted: 4 trials kept. Resume: autotune study resume qwen3-cpu --db my.db")
    assert "Traceback" not in errors


def test_an_interruption_before_the_start_is_one_line_too():
    with subprocess.Popen(command("early"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as study:
        assert study.stdout.readline() == "ready\n"
        study.send_signal(signal.SIGTERM)
        _, errors = study.communicate(timeout=30)
    assert study.returncode == 130
    assert errors == "error: interrupted before anything was measured\n"


def test_an_interrupted_json_run_ends_with_an_object():
    with subprocess.Popen(
        command("slow", "--json"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as study:
        assert study.stdout.readline() == "ready\n"
        study.send_signal(signal.SIGINT)
        out, _ = study.communicate(timeout=30)
    assert json.loads(out)["exit_code"] == 130


def test_an_error_amid_a_study_is_one_line_with_its_exit_code():
    done = play("broken", "--json")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "error: the disk is full — make room"
    assert json.loads(done.stdout) == {"error": "the disk is full", "hint": "make room", "exit_code": 3}


def test_a_study_outlives_the_reader_of_its_progress():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        done = subprocess.run(command("quick"), stdout=subprocess.PIPE, stderr=nobody, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith(b"BETTER")


def on_terminal(*words, **environment):
    return pexpect.spawn(
        sys.executable, ["-c", PROGRAM, "study", *words], dimensions=(24, 80), encoding="utf-8", timeout=30,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )  # fmt: skip


def test_a_terminal_gets_the_live_view_and_its_cursor_back():
    study = on_terminal("slow")
    study.expect("4 of 12 trials")
    study.expect("★ 1")
    study.sendintr()
    study.expect("interrupted: 4 trials kept. Resume: ")
    study.expect(pexpect.EOF)
    study.close()
    assert study.exitstatus == 130


def test_the_live_view_leaves_only_the_result():
    study = on_terminal("quick")
    study.expect(pexpect.EOF)
    study.close()
    assert study.exitstatus == 0
    assert study.before.count("\x1b[?25l") == study.before.count("\x1b[?25h") == 1
    assert "\x1b[1;32mBETTER" in study.before


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_is_given_only_where_it_is_wanted(environment):
    study = on_terminal("quick", **environment)
    study.expect(pexpect.EOF)
    study.close()
    assert "\x1b[1;32m" not in study.before
    assert "\x1b[32m" not in study.before
    assert "BETTER" in study.before
