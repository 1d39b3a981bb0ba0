"""The user's programs: a real script that keeps what it was told in a file."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autotuner.daemon.hooks import HookError, Hooks, observe, put_in_place, run_hook, said_environment
from autotuner.types import Deployment

SCRIPT = """
import json, pathlib, sys
place = pathlib.Path(sys.argv[2])
if sys.argv[1] == "apply":
    stable, candidate, percent, token, folder = sys.argv[3:8]
    place.write_text(json.dumps({"stable": stable, "candidate": candidate, "percent": int(percent), "token": token}))
    assert pathlib.Path(folder).name == stable
else:
    print(place.read_text())
"""
WANTED = Deployment("aaa", "bbb", 10)


@pytest.fixture
def hooks(tmp_path):
    script, place = tmp_path / "hook.py", str(tmp_path / "service.json")
    script.write_text(SCRIPT)
    words = ["{stable_hash}", "{candidate_hash}", "{percent}", "{token}", "{stable}"]
    python = [sys.executable, str(script)]
    return Hooks([*python, "apply", place, *words], [*python, "observe", place], deadline_s=30)


def apply(hooks, wanted=WANTED):
    put_in_place(hooks, wanted, 7, lambda name: Path("/bundles") / name, time.monotonic)


def test_what_is_wanted_is_told_and_read_back(hooks, tmp_path):
    for wanted in (WANTED, WANTED, Deployment("bbb")):
        apply(hooks, wanted)
        assert observe(hooks, 10) == wanted
    assert json.loads((tmp_path / "service.json").read_text())["token"] == "7"


def with_(hooks, **changes):
    return Hooks(**{name: changes.get(name, getattr(hooks, name)) for name in Hooks.__dataclass_fields__})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"apply": ["false"]}, "apply ended with 1"),
        ({"apply": ["/does/not/exist"]}, "apply cannot be started: /does/not/exist: No such file"),
        ({"apply": ["sleep", "60"], "deadline_s": 0.2}, "apply did not end within 0."),
        ({"observe": ["echo", "fine"]}, "observe says no JSON object"),
        ({"observe": ["echo", "[]"]}, "observe says no JSON object"),
        ({"observe": ["echo", '{"stable": "zzz"}']}, "the service says that it is zzz, and not aaa with 10 % for bbb"),
        ({"smoke": ["sh", "-c", "echo it is down; exit 3"]}, "smoke ended with 3: it is down"),
    ],
)
def test_what_goes_wrong_is_said(hooks, changes, words):
    with pytest.raises(HookError) as raised:
        apply(with_(hooks, **changes))
    assert words in str(raised.value)


def test_words_are_no_shell(hooks, tmp_path):
    service = Deployment("$(touch owned)", "", 0)
    apply(hooks, service)
    assert observe(hooks, 10) == service
    assert not (tmp_path / "owned").exists()


STALLED = """
import os, signal, sys, time
pathlib = __import__("pathlib")
child = os.fork()
if child == 0:
    pathlib.Path(sys.argv[1] + ".begun").touch()
    time.sleep(1.0)
    pathlib.Path(sys.argv[1]).write_text("an old deployment")
    os._exit(0)
os.waitpid(child, 0)
"""
KEEPER = """
import pathlib, sys, time
from autotuner.daemon.hooks import Hooks, put_in_place
from autotuner.types import Deployment
hooks = Hooks([sys.executable, sys.argv[1], sys.argv[2]], ["true"])
put_in_place(hooks, Deployment("aaa"), 1, pathlib.Path, time.monotonic)
"""


def test_a_hook_dies_with_the_daemon_that_is_killed(tmp_path):
    """Else it could put an old deployment in place after the next daemon put a newer one there; its children too."""
    (tmp_path / "stalled.py").write_text(STALLED)
    place = tmp_path / "service"
    argv = [sys.executable, "-c", KEEPER, str(tmp_path / "stalled.py"), str(place)]
    with subprocess.Popen(argv) as daemon:
        while not (tmp_path / "service.begun").exists():
            assert daemon.poll() is None
            time.sleep(0.01)
        daemon.kill()
    time.sleep(1.5)
    assert not place.exists()


def test_what_a_hook_leaves_running_goes_on(tmp_path):
    """It may start the service itself."""
    script = f"(sleep 0.5; touch {tmp_path}/lives) > /dev/null 2>&1 &"
    hooks = Hooks(["sh", "-c", script], ["echo", '{"stable": "aaa"}'])
    put_in_place(hooks, Deployment("aaa"), 1, Path, time.monotonic)
    deadline_s = time.monotonic() + 20
    while not (tmp_path / "lives").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_child_that_holds_the_output_beyond_the_hooks_end_is_waited_for_until_the_deadline(tmp_path):
    """And then it dies, as all that takes too long; what left the group lives on, and is not waited for."""
    for words, message in (("", "apply ended with 3: first second"), ("setsid", "apply did not end within 1 s")):
        pid, late = tmp_path / f"{words}pid", "sleep 0.3; echo second" if not words else "exec sleep 300"
        script = f"{words} sh -c 'echo $$ > {pid}; {late}' & echo first; "
        script += f"until [ -s {pid} ]; do sleep 0.01; done; exit 3"
        with pytest.raises(HookError, match=message):
            run_hook("apply", ["sh", "-c", script], {}, 10 if not words else 1)
    psutil.Process(int(pid.read_text())).kill()  # raises when it is gone


GREEDY = """
from pathlib import Path
from autotuner.daemon.hooks import HookError, run_hook
try:
    run_hook("apply", ["yes", "y" * 1000], {}, 2.0)
except HookError as error:
    print(error)
status = Path("/proc/self/status").read_text()  # getrusage counts what the tests had before this program was begun
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def test_a_hook_that_never_stops_printing_costs_no_memory():
    """It prints gigabytes; the limit is for the whole process, with its modules."""
    done = subprocess.run([sys.executable, "-c", GREEDY], capture_output=True, text=True, check=True)
    said, most_mib = done.stdout.splitlines()
    assert said == "apply did not end within 2 s"
    assert int(most_mib) < 150


def test_of_much_output_the_beginning_and_the_end_are_kept():
    script = "echo first; head -c 9000000 /dev/zero | tr '\\0' x; echo last"
    said = run_hook("evidence", ["sh", "-c", script], {}, 60)
    assert said.startswith("first\nxxx")
    assert said.endswith("xxxlast\n")
    assert len(said) < 200_000
    assert "x\n... 8868939 bytes are left out ...\nx" in said
    with pytest.raises(HookError, match=r"smoke ended with 3: x*last$"):
        run_hook("smoke", ["sh", "-c", f"{script}; exit 3"], {}, 60)


def test_what_observe_says_counts_whole_or_not_at_all(tmp_path):
    """What is left of much might else be read as something that it never said."""
    for extra, whole in ((60_000, True), (500_000, False)):
        (tmp_path / "said").write_text(json.dumps({"more": "x" * extra, "stable": "a"}))
        hooks = Hooks([], ["cat", str(tmp_path / "said")])
        if whole:
            assert observe(hooks, 30) == Deployment("a")
        else:
            with pytest.raises(HookError, match="observe says no JSON object"):
                observe(hooks, 30)


@pytest.mark.parametrize(
    "said",
    ['{"stable": "a", "percent": 10.9}', '{"stable": "a", "percent": 1e999}', '{"stable": "a", "percent": -1}',
     '{"stable": "a", "percent": 101}', '{"stable": "a", "percent": true}', '{"stable": "a", "percent": "10"}',
     '{"stable": "a", "percent": NaN}', '{"stable": 1}', '{"stable": ["a"]}', r'{"stable": "\ud800"}', "[" * 100_000,
     '{"stable": "a", "candidate": 1}', '["stable"]', "null", '{"stable": "a", "percent": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_what_observe_may_not_say_is_no_deployment(hooks, tmp_path, said):
    (tmp_path / "said").write_text(said)
    with pytest.raises(HookError, match="observe says no JSON object"):
        observe(with_(hooks, observe=["cat", str(tmp_path / "said")]), 10)


def test_a_share_may_be_written_as_one_likes(hooks):
    said = ["echo", '{"stable": "a", "candidate": "b", "percent": 10.0}']
    assert observe(with_(hooks, observe=said), 10) == Deployment("a", "b", 10)


@pytest.mark.parametrize("word", ["x\x00y", "x" * 3_000_000])
def test_words_that_no_program_can_be_given_are_an_error_of_the_hook(hooks, word):
    with pytest.raises(HookError, match="observe cannot be started"):
        observe(with_(hooks, observe=["echo", word]), 10)


def test_what_the_environment_says_can_be_printed():
    assert said_environment(["echo", r'{"\ud800": "\udfff", "driver": 1}'], 10) == {"?": "?", "driver": "1"}
    for said in ("[" * 100_000, "[1]"):
        with pytest.raises(HookError, match="environment says no JSON object"):
            said_environment(["echo", said], 10)
