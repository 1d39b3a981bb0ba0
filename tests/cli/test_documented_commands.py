"""Every `autotune` command in README and docs is parsed as the command line parses it, and its files are there.

Those that only look, check or write a file are run, on a scripted record; those that start a study are run for its
first trial. Servers, profiles and verifications are run by the tests of those, with the same files.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from autotuner.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {  # run by other tests, or endless, or needing what no test machine has
    "study start", "study resume", "study verify", "profile", "load", "doctor", "gpu record", "dashboard", "bench",
}  # fmt: skip
PLACEHOLDERS = {"NAME", "OTHER", "A", "B", "N", "FILE", "URL", "TARGET", "my", "inference", "my_loop"}


def commands():
    """(page, line, words) of every line of shell in a fenced block that calls autotune."""
    for page in PAGES:
        for block in re.finditer(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block[1].replace("\\\n", " ").splitlines():
                for part in re.split(r"\s(?:&&|\|)\s|;", line.partition("  #")[0]):
                    words = shlex.split(re.sub(r"^[A-Z_]+=\S+ ", "", part.strip()), comments=True)
                    if words and words[0] == "autotune":
                        yield page.name, line, words[1:]


CASES = list(commands())


def leaf(words):
    """The command that these words call, its name, and its parsed parameters."""
    command, name, rest = typer.main.get_command(app), "", list(words)
    while hasattr(command, "commands"):
        while rest and rest[0].startswith("-"):
            return command, name, {}
        name = f"{name} {rest[0]}".strip()
        assert rest[0] in command.commands, f"there is no command {name}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, name, command.make_context(name, rest).params


@pytest.mark.parametrize(("page", "line", "words"), CASES, ids=[f"{page}: {line[:60]}" for page, line, _ in CASES])
def test_it_can_be_typed(page, line, words):
    _, _, parameters = leaf(words)
    for value in parameters.values():
        if isinstance(value, Path) and value.parts[0] in ("search_spaces", "examples"):
            assert (ROOT / value).exists(), f"{page}: {value} is not there"


def runnable():
    for page, line, words in CASES:
        _, name, _ = leaf(words)
        if name not in ELSEWHERE and "--help" not in words and "daemon" not in name:
            yield page, line, words


RUNNABLE = list(runnable())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a user has it: files of their own, and a record with studies of these names."""
    place = tmp_path_factory.mktemp("user")
    (place / "studies").mkdir()
    for name in ("search_spaces", "examples"):
        (place / name).symlink_to(ROOT / name)
    (place / "my.yaml").write_text((ROOT / "search_spaces" / "inference.yaml").read_text())
    from autotuner.spec import load
    from autotuner.store import open_record
    from autotuner.types import Decision, Verification

    sys.path.insert(0, str(ROOT / "tests" / "report"))
    from test_study_page import fill

    with open_record(str(place / "studies" / "autotune.db")) as record:
        for name in ("NAME", "OTHER", "A", "B", "my", "inference"):
            fill(record, 16, [f"name={name}"])
        spec = load(ROOT / "search_spaces" / "my_loop.yaml")
        chosen = {**spec.baseline, "micro_batch": 32}
        record.create(spec, "my_loop").append_verification(
            Verification(
                Decision.BETTER,
                "It is.",
                chosen,
                spec.baseline,
                spec.objective.metric,
                2.0,
                (1.9, 2.1),
                environment={"cpu": "Some CPU"},
            )
        )
    return place


@pytest.mark.parametrize(
    ("page", "line", "words"), RUNNABLE, ids=[f"{page}: {line[:60]}" for page, line, _ in RUNNABLE]
)
def test_it_does_what_the_page_says(page, line, words, folder, tmp_path):
    named = [
        "my.yaml" if word == "FILE" else "3" if word == "N" else "env" if word == "TARGET" else word for word in words
    ]
    named = [word for word in named if word != "--open"]
    if named[0] == "export" and "--check" not in named and "--list" not in named:
        named += ["-o", str(tmp_path / "out")]
    program = "from autotuner.cli.main import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, *named], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{page}: {line}\n{done.stdout}{done.stderr}"


PLAIN = (["study", "start", "my.yaml"], ["study", "start", "search_spaces/inference.yaml"])  # as `make tune` starts it
STARTS = list({tuple(case[2]): case for case in CASES if leaf(case[2])[1] == "study start"}.values())
STARTS = [case for case in STARTS if case[2] not in PLAIN]
SHORT = [f"protocol.{key}" for key in ("min_measure_s=0.2", "max_measure_s=1", "warmup_max_s=1.5")]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(("page", "line", "words"), STARTS, ids=[f"{page}: {line[:60]}" for page, line, _ in STARTS])
def test_the_study_that_the_page_starts_measures_its_baseline(page, line, words, folder):
    program = "from autotuner.cli.main import app; app()"
    argv = [
        sys.executable,
        "-c",
        program,
        *words,
        "--set",
        "budget.trials=1",
        *(word for key in SHORT for word in ("--set", key)),
        "--json",
        "--db",
        "started.db",
    ]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{page}: {line}\n{done.stdout}{done.stderr}"
    assert json.loads(done.stdout)["trials"] == 1


def test_there_are_commands_to_test():
    assert len(STARTS) > 2
    assert len(CASES) > 30
    assert len(RUNNABLE) > 12
