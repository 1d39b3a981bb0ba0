"""The page of a study, from a real record, in a real browser where there is one. The trials are SYNTHETIC."""

import dataclasses
import json
import random
import re
import time
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from browser import Checker, browse, needs_browser
from typer.testing import CliRunner

from autotuner.cli.main import app
from autotuner.report.charts import axis
from autotuner.report.study_page import page, write_page
from autotuner.spec import load
from autotuner.store import open_record
from autotuner.story import tell
from autotuner.types import (
    Binding,
    Contribution,
    Decision,
    Diagnosis,
    Equivalence,
    Failure,
    FailureKind,
    Measurement,
    Origin,
    Pair,
    Tier,
    Trial,
    Verdict,
    Verification,
)

INFERENCE = Path(__file__).parents[2] / "search_spaces" / "inference.yaml"
METRIC = "throughput_tokens_per_s"
NASTY = "<script>document.title='broken'</script>&\"'"
AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def trial_of(number, config, draw):
    value = 200 * config["batch_size"] ** 0.7 * (1.3 if config["compile"] != "none" else 1) * draw.uniform(0.95, 1.05)
    if number and draw.random() < 0.08:
        kind = draw.choice([FailureKind.OUT_OF_MEMORY, FailureKind.CRASHED])
        return Trial(
            number, config, Origin.SAMPLER, Failure(kind, f"it broke {NASTY}", f"logs/{number}.log", 2.5), None
        )
    evidence = {"step_flops": 1e9 * config["batch_size"], "step_bytes": 2e8 + 1e7 * config["batch_size"], "step_s": 0.1}
    diagnosis = Diagnosis(Binding.COMPUTE, "It computes.", evidence)
    excess = 0.4 if config["batch_size"] == 16 and draw.random() < 0.3 else -0.5
    verdict = Verdict({METRIC: value}, {"latency_p95_s <= 1 s": excess}, diagnosis, 0.01)
    measured = Measurement({METRIC: (value,)}, 1.0, 0.5, 2.0, {}, {"cpu": "Some CPU", "torch": "2.13.0"}, AT)
    return Trial(number, config, Origin.SAMPLER if number else Origin.BASELINE, measured, verdict)


def fill(record, trials, overrides=()):
    """A study of inference.yaml with so many trials, and a verdict."""
    spec = load(INFERENCE, overrides)
    study = record.create(spec, spec.name)
    draw = random.Random(0)
    configs = [spec.baseline] + [
        spec.canonical({name: draw.choice(parameter.values) for name, parameter in spec.parameters.items()})
        for _ in range(trials - 1)
    ]
    made = [trial_of(number, config, draw) for number, config in enumerate(configs)]
    study.append_trials(made)
    for trial in made:
        study.append_event("proposed", {"trial": trial.number, "reason": f"because of {NASTY}"})
    best = max((t for t in made if t.verdict and t.verdict.feasible), key=lambda t: t.verdict.objectives[METRIC])
    pairs = tuple(Pair(n // 4, 2900.0 + 37 * (n % 5), 2190.0 + 31 * (n % 4), contended=n == 5) for n in range(12))
    study.append_verification(Verification(
        Decision.BETTER, "The interval lies above the region of equivalence.", best.config, spec.baseline, METRIC, 1.33,
        (1.28, 1.38), pairs, 0.014, Equivalence(True, Tier.ROUNDING, "KL 1e-6 nats", {"output_kl_nats": 1e-6}),
        {METRIC: 2918.0, "latency_p95_s": 0.141}, {METRIC: 2196.0, "latency_p95_s": 0.2},
        {"latency_p95_s <= 1 s": -0.86},
        (Contribution("batch_size", 1.25, (1.2, 1.3), 4), Contribution("compile", 1.06, (0.99, 1.14), 4)),
    ))  # fmt: skip
    study.append_event("ceilings", {"matmul_float32_flops_per_s": 2e11, "copy_bytes_per_s": 2e10})
    study.append_event(
        "finished", {"stopped": "24 trials were made", "phases_s": {"measuring": 100.0, "verifying": 60.0}}
    )
    return made


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "record.db"
    with open_record(str(path)) as record:
        fill(record, 60)
    return str(path)


@pytest.fixture(scope="module")
def story(db):
    with open_record(db) as record:
        return tell(record, "inference")


@pytest.fixture(scope="module")
def html(story):
    return page(story)


def test_the_page_is_well_formed_and_asks_nothing_of_the_network(html):
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    assert checker.far == []
    assert "@import" not in html
    assert "url(" not in html


def test_other_peoples_words_stay_words(html):
    assert NASTY not in html
    assert "&lt;script&gt;document.title" in html


def test_every_part_is_on_the_page(html):
    for words in ("BETTER", "33 % higher", "1.33×", "[1.28, 1.38]", "What each change is worth", "Search", "Parameters",
                  "What binds it", "Trials", "Failures", "Where the time went", "How to do it again",
                  "12 raw pairs", "verifying", "Some CPU", "float32 200 GFLOP/s", "autotune study start"):  # fmt: skip
        assert words in html, words


def test_the_numbers_are_the_records(html, db):
    with open_record(db) as record:
        study = record.study("inference")
        trials, found = study.trials(), study.verifications()[-1][1]
    rows = re.findall(r'<tr class="(\w+)" data-trial="(\d+)".*?</tr>', html)
    assert [int(number) for _, number in rows] == [trial.number for trial in trials]
    values = re.findall(r'<td data-v="(\d+)">\d+</td><td>.*?</td><td data-v="([^"]*)">', html)
    recorded = {str(t.number): repr(t.verdict.objectives[METRIC]) if t.verdict else "" for t in trials}
    assert dict(values) == recorded
    for pair in found.pairs:
        assert f'data-v="{pair.candidate!r}"' in html
        assert f'data-v="{pair.baseline!r}"' in html


def test_a_study_under_way_has_a_page(tmp_path):
    with open_record(str(tmp_path / "record.db")) as record:
        spec = load(INFERENCE)
        study = record.create(spec, "inference")
        empty = page(tell(record, "inference"))
        study.append_trial(trial_of(0, spec.baseline, random.Random(0)))
        one = page(tell(record, "inference"))
    assert "UNVERIFIED" in empty
    assert "Not verified yet" in one
    assert "baseline" in one


def test_several_objectives_have_a_front(tmp_path):
    with open_record(str(tmp_path / "record.db")) as record:
        spec = load(INFERENCE, ["objectives=[{maximize: throughput_tokens_per_s}, {minimize: peak_memory_bytes}]"])
        study = record.create(spec, "inference")
        for number, (speed, memory) in enumerate([(100.0, 1e9), (200.0, 2e9), (150.0, 3e9)]):
            trial = trial_of(0, spec.baseline, random.Random(0))
            objectives = {METRIC: speed, "peak_memory_bytes": memory, "score": speed / 100}
            study.append_trial(dataclasses.replace(
                trial, number=number, config={**spec.baseline, "batch_size": 2**number},
                verdict=dataclasses.replace(trial.verdict, objectives=objectives)))  # fmt: skip
        told = tell(record, "inference")
    assert told.front == {0, 1}
    assert "peak_memory_bytes against throughput_tokens_per_s" in page(told)


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [3.0, 5.0], [-1.0, 1e9], [1e-9, 2e-9]])
def test_ticks_are_round_and_on_the_axis(values):
    found = axis(values)
    assert found.low < min(values) <= max(values) < found.high
    assert 2 <= len(found.ticks) <= 8
    assert all(found.low <= tick <= found.high for tick in found.ticks)


def test_only_a_page_of_ours_is_replaced(tmp_path, html, db):
    path = tmp_path / "report.html"
    write_page(html, path)
    write_page(html, path)
    (tmp_path / "thesis.html").write_text("years")
    done = CliRunner().invoke(app, ["study", "report", "inference", "--db", db, "-o", str(tmp_path / "thesis.html")])
    assert done.exit_code == 2
    assert "is there already and is no report" in done.stderr
    assert (tmp_path / "thesis.html").read_text() == "years"
    done = CliRunner().invoke(app, ["study", "report", "inference", "--db", db, "--json"])
    assert Path(json.loads(done.stdout)["path"]).read_text() == html


USE = """<script>
const rows = () => [...document.querySelectorAll("table.trials tbody tr")];
const shown = () => rows().filter((row) => !row.hidden);
const result = {all: shown().length};
const head = (text) => [...document.querySelectorAll("table.trials th button")].find((b) => b.textContent === text);
const column = (row, i) => Number(row.cells[i].dataset.v);
head("throughput_tokens_per_s").click();
const known = rows().map((row) => row.cells[2].dataset.v).filter(Boolean).map(Number);
result.rising = known.every((v, i) => !i || known[i - 1] <= v);
head("throughput_tokens_per_s").click();
result.first = column(rows()[0], 2);
result.sort = head("throughput_tokens_per_s").parentElement.getAttribute("aria-sort");
result.failedLast = rows().at(-1).dataset.kind;
const find = document.querySelector(".filter input");
find.value = "batch_size=1";
find.dispatchEvent(new Event("input"));
result.ones = shown().length;
result.onesRight = shown().every((row) => JSON.parse(row.dataset.words).includes("batch_size=1"));
document.querySelector(".reset").click();
const kind = document.querySelector(".filter select");
kind.value = "failed";
kind.dispatchEvent(new Event("change"));
result.failed = shown().length;
result.count = document.querySelector(".filter output").textContent;
document.querySelector(".reset").click();
const label = document.querySelector('.parallel .value[data-parameter="dtype"][data-value="bfloat16"]');
label.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
result.chosen = shown().length;
result.chosenRight = shown().every((row) => row.dataset.words.includes("dtype=bfloat16"));
result.pressed = label.getAttribute("aria-pressed");
result.faded = document.querySelectorAll(".parallel .faded").length;
document.querySelector(".reset").click();
result.again = shown().length;
const row = document.querySelector('tr[data-trial="0"]');
row.click();
result.lit = document.querySelectorAll('svg .lit[data-trial="0"]').length;
result.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
result.unlabelled = [...document.querySelectorAll("svg")].filter((svg) => !svg.getAttribute("aria-label")).length;
document.body.dataset.result = JSON.stringify(result);
</script>"""


@needs_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_sorting_finding_and_choosing_in_a_browser(html, db, tmp_path, width):
    with open_record(db) as record:
        trials = record.study("inference").trials()
    dom, complaints = browse(
        tmp_path, f"--window-size={width},1000", "--dump-dom", html=html.replace("</body>", f"{USE}</body>")
    )
    assert complaints == []
    assert "<title>broken" not in dom
    result = json.loads(unescape(re.search(r'data-result="([^"]*)"', dom)[1]))
    failed = sum(isinstance(trial.outcome, Failure) for trial in trials)
    assert result["all"] == result["again"] == len(trials)
    assert result["rising"]
    assert result["sort"] == "descending"
    assert result["first"] == max(t.verdict.objectives[METRIC] for t in trials if t.verdict)
    assert result["failedLast"] == "failed"
    assert (result["failed"], result["count"]) == (failed, f"{failed} of {len(trials)}")
    assert result["ones"] == sum(trial.config["batch_size"] == 1 for trial in trials)
    assert result["chosen"] == sum(trial.config["dtype"] == "bfloat16" for trial in trials)
    assert result["onesRight"]
    assert result["chosenRight"]
    assert result["pressed"] == "true"
    assert result["faded"] > 0
    assert result["lit"] >= 2, "in the search and in a slice"
    assert result["wide"] == 0, "nothing is wider than the window"
    assert result["unlabelled"] == 0


@needs_browser
def test_light_and_dark_are_different_pictures(html, tmp_path):
    shots = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        shot = tmp_path / f"{scheme}.png"
        browse(tmp_path, f"--blink-settings=preferredColorScheme={number}", f"--screenshot={shot}", html=html)
        shots[scheme] = shot.read_bytes()
    assert all(len(shot) > 20_000 for shot in shots.values())
    assert shots["dark"] != shots["light"]


def test_two_thousand_trials_are_no_burden(tmp_path):
    """Twenty times as many as 100, on the same machine: far from the square of that, and under 5 MB."""
    seconds = {}
    for count in (100, 2000):
        with open_record(str(tmp_path / f"{count}.db")) as record:
            fill(record, count)
            began_s = time.process_time()
            text = page(tell(record, "inference"))
            seconds[count] = time.process_time() - began_s
    assert len(text) < 5 * 2**20
    assert seconds[2000] < 60 * seconds[100]
