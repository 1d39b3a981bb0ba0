"""How blocks become a ceiling, what is kept of two measurements, and that a study never fails for it."""

import json
import math
import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime

import psutil
import pytest
from typer.testing import CliRunner

from autotuner.cli.main import app
from autotuner.doctor import ceilings_for, measure_ceilings
from autotuner.doctor.bench import better
from autotuner.doctor.ceilings import as_ceilings, machine_environment, merge
from autotuner.doctor.operations import all_reduces, fast_side, operations
from autotuner.errors import MachineError
from autotuner.report.doctor import unit_of
from autotuner.store import open_record
from autotuner.types import Ceilings, Estimate, Failure, FailureKind, Measurement

pytestmark = pytest.mark.alone
COPY = next(each for each in operations("cpu", quick=True) if each.ceiling == "copy_bytes_per_s")
LAUNCH = next(each for each in operations("cpu", quick=True) if each.ceiling == "launch_s")
MACHINE = {"cpu": "a", "device": "cpu"}


def measured(work: str, rates: Sequence[float], contended: bool = False, **samples: tuple[float, ...]) -> Measurement:
    return Measurement(
        {f"throughput_{work}_per_s": tuple(rates), **samples}, 0.1, 0.1, 0.5, {}, {}, datetime.now(UTC), contended
    )


def ceilings(contended: Sequence[str] = (), **values: float) -> Ceilings:
    known = {name: Estimate(value, value, value) for name, value in values.items()}
    return Ceilings(known, MACHINE, datetime.now(UTC), tuple(contended))


def test_a_ceiling_is_what_every_fourth_block_reached():
    found = fast_side([float(rate) for rate in range(100, 0, -1)])
    assert found.value == 75
    assert found.low < 75 < found.high < 100


@pytest.mark.parametrize("count", [13, 16, 40])
def test_its_interval_covers_95_percent(count):
    """The true upper quartile of the standard exponential is ln 4."""
    draw = random.Random(count)
    kept = 0
    for _ in range(2000):
        found = fast_side([draw.expovariate(1) for _ in range(count)])
        kept += found.low <= math.log(4) <= found.high
    assert kept / 2000 > 0.94


def test_few_blocks_give_their_extremes():
    assert fast_side([3.0, 1.0, 2.0]) == Estimate(3.0, 1.0, 3.0)
    assert fast_side([2.0]) == Estimate(2.0, 2.0, 2.0)


def test_an_operation_is_told_as_its_seconds():
    found = LAUNCH.estimate(measured("operations", [1e5] * 8 + [2e5] * 8))
    assert found.value == 5e-6
    assert found.low == 5e-6
    assert found.high == 1e-5


def test_of_disturbed_blocks_the_fastest_counts():
    rates = [1.0, 2.0, 9.0, 3.0] * 4
    assert COPY.estimate(measured("bytes", rates)).value < COPY.estimate(measured("bytes", rates, contended=True)).value
    assert COPY.estimate(measured("bytes", rates, contended=True)).value == 9.0


def test_the_quick_subset_is_what_a_diagnosis_needs():
    quick = {each.ceiling for each in operations("cpu", quick=True)}
    assert quick == {
        "matmul_float32_flops_per_s", "matmul_bfloat16_flops_per_s", "matmul_float16_flops_per_s", "copy_bytes_per_s",
        "triad_bytes_per_s", "launch_s",
    }  # fmt: skip
    for device in ("cpu", "cuda"):
        everything = operations(device, quick=False)
        assert set(operations(device, quick=True)) < set(everything)
        assert all(unit_of(each.ceiling) for each in everything), "a report knows every unit"
        assert len({each.ceiling for each in everything}) == len(everything)
    assert {"graph_launch_s", "upload_pinned_bytes_per_s", "matmul_float8_e4m3fn_flops_per_s"} <= {
        each.ceiling for each in operations("cuda", quick=False)
    }


def test_the_contract_names_every_ceiling():
    text = " ".join((Ceilings.__doc__ or "").split())
    for each in operations("cuda", quick=False):
        name = "matmul_<dtype>_flops_per_s" if each.ceiling.startswith("matmul_") else each.ceiling
        assert f"`{name}`" in text, each.ceiling


def test_an_undisturbed_window_is_better_whatever_its_rate():
    calm, busy, faster = (measured("bytes", [r], c) for r, c in ((5.0, False), (9.0, True), (10.0, True)))
    assert better(COPY, busy, calm) is calm
    assert better(COPY, calm, busy) is calm
    assert better(COPY, busy, faster) is faster
    assert better(COPY, faster, None) is faster


def test_a_new_measurement_keeps_what_it_did_not_measure_and_what_was_better():
    known = ceilings(["triad_bytes_per_s", "launch_s", "graph_launch_s"], copy_bytes_per_s=10.0, triad_bytes_per_s=9.0,
                     launch_s=1.0, graph_launch_s=1.0, disk_read_bytes_per_s=3.0)  # fmt: skip
    now = ceilings(["copy_bytes_per_s", "triad_bytes_per_s", "graph_launch_s"], copy_bytes_per_s=50.0,
                   triad_bytes_per_s=8.0, launch_s=2.0, graph_launch_s=0.5)  # fmt: skip
    merged = merge(known, now)
    assert {name: each.value for name, each in merged.values.items()} == {
        "copy_bytes_per_s": 10.0,  # was calm, and is disturbed now
        "triad_bytes_per_s": 9.0,  # disturbed both times: what proves more
        "graph_launch_s": 0.5,  # the same of a time
        "launch_s": 2.0,  # is calm now
        "disk_read_bytes_per_s": 3.0,
    }
    assert merged.contended == ("graph_launch_s", "triad_bytes_per_s")
    elsewhere = replace(now, environment={"gpu": "another"})
    assert merge(known, elsewhere) == elsewhere


def test_alpha_and_beta_of_the_all_reduce_are_found_again():
    """Two processes exchange two messages an all-reduce: t = 2 alpha + m beta."""
    alpha_s, beta_s_per_byte = 2e-4, 1e-9
    links = {}
    for each in all_reduces():
        time_s = 2 * alpha_s + each.message_bytes * beta_s_per_byte
        links[each] = measured("operations", [1 / time_s] * 16, contended=each.message_bytes == 8)
    found = as_ceilings(MACHINE, {COPY: measured("bytes", [1.0] * 16)}, links)
    assert found.value("allreduce_alpha_s") == pytest.approx(alpha_s, rel=1e-6)
    assert found.value("allreduce_beta_s_per_byte") == pytest.approx(beta_s_per_byte, rel=1e-6)
    assert set(found.contended) == {"allreduce_alpha_s", "allreduce_beta_s_per_byte"}


def test_a_gpu_tells_its_own_cache():
    on_gpu = {COPY: measured("bytes", [1.0], cache_bytes=(5e7, 5e7))}
    assert as_ceilings({"device": "cuda"}, on_gpu, {}).value("cache_bytes") == 5e7
    assert as_ceilings({"device": "cuda"}, {}, {}).values == {}
    assert as_ceilings({"device": "cpu"}, {COPY: measured("bytes", [1.0])}, {}).value("cache_bytes") > 2**18


class Scripted:
    """A pool that answers from a script: for each operation the outcomes in turn, else a calm measurement."""

    slots = 1

    def __init__(self, **script):
        self.script = {name.replace("_", "-"): list(outcomes) for name, outcomes in script.items()}
        self.asked, self.closed = [], []

    def submit(self, job):
        name = job.config["operation"]
        self.asked.append(name)
        future = Future()
        waiting = self.script.get(name)
        outcome = waiting.pop(0) if waiting else self.calm(name)
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
        return future

    @staticmethod
    def calm(name):
        work = {"matmul": "flops", "launch": "operations", "graph": "operations", "allreduce": "operations"}
        return measured(work.get(name.partition("-")[0], "bytes"), [100.0] * 16)

    def close(self, launch):
        self.closed.append(launch)


def test_what_was_disturbed_is_measured_again_and_marked_if_it_stays_so():
    pool = Scripted(
        copy=[measured("bytes", [50.0] * 16, contended=True)],
        triad=[measured("bytes", [50.0] * 16, contended=True), measured("bytes", [60.0] * 16, contended=True)],
    )
    found = measure_ceilings("cpu", pool=pool, quick=True)
    assert pool.asked[-2:] == ["copy", "triad"]
    assert found.value("copy_bytes_per_s") == 100.0
    assert found.value("triad_bytes_per_s") == 60.0
    assert found.contended == ("triad_bytes_per_s",)
    assert pool.closed == ["ceilings"], "a pool that was lent is given back without our processes"


def test_what_cannot_be_measured_is_absent_and_said_unless_it_is_usual():
    notes = []
    pool = Scripted(
        copy=[Failure(FailureKind.CRASHED, "boom")],
        disk_read=[Failure(FailureKind.UNSUPPORTED, "the file stays in memory")],
        matmul_float16=[Failure(FailureKind.UNSUPPORTED, "no such instructions")],
        allreduce=[Failure(FailureKind.UNSUPPORTED, "no network")],
    )
    found = measure_ceilings("cpu", pool=pool, note=notes.append)
    missing = {"copy_bytes_per_s", "disk_read_bytes_per_s", "matmul_float16_flops_per_s", "allreduce_alpha_s"}
    assert not missing & found.values.keys()
    assert [note.partition(" ")[0] for note in notes] == ["copy_bytes_per_s", "disk_read_bytes_per_s", "all-reduce"]
    assert pool.asked.count("allreduce") == 1, "without one size there is no sense in the others"


def test_a_gpu_is_asked_for_more():
    asked = Scripted()
    found = measure_ceilings("cuda", pool=asked)
    assert {"graph_launch_s", "upload_pinned_bytes_per_s", "matmul_tf32_flops_per_s"} <= found.values.keys()
    assert "allreduce" not in asked.asked, "a study's GPU is alone"


@pytest.fixture
def record(tmp_path):
    with open_record(str(tmp_path / "a.db")) as opened:
        yield opened


def test_ceilings_are_measured_once_a_machine(record, monkeypatch):
    notes, pool = [], Scripted()
    first = ceilings_for(record, "cpu", pool=pool, note=notes.append)
    count = len(pool.asked)
    assert ceilings_for(record, "cpu", pool=pool, note=notes.append) == first
    assert (len(pool.asked), len(notes)) == (count, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert ceilings_for(record, "cpu", pool=pool).environment != first.environment
    assert len(pool.asked) == 2 * count


def test_a_study_measures_disturbed_ceilings_again(record):
    known = ceilings_for(record, "cpu", pool=Scripted())
    record.append_ceilings(replace(known, contended=("copy_bytes_per_s",)))
    pool = Scripted()
    assert ceilings_for(record, "cpu", pool=pool).contended == ("copy_bytes_per_s",)
    assert pool.asked == []
    assert ceilings_for(record, "cpu", pool=pool, retry_disturbed=True).contended == ()
    assert ceilings_for(record, "cpu", pool=(idle := Scripted()), retry_disturbed=True)
    assert idle.asked == []


def test_the_rest_is_measured_when_somebody_wants_everything(record):
    pool = Scripted()
    ceilings_for(record, "cpu", pool=pool)
    full = ceilings_for(record, "cpu", pool=pool, quick=False)
    assert "disk_read_bytes_per_s" in full.values
    count = len(pool.asked)
    assert ceilings_for(record, "cpu", pool=pool) == ceilings_for(record, "cpu", pool=pool, quick=False) == full
    assert len(pool.asked) == count
    again = ceilings_for(record, "cpu", pool=pool, again=True)
    assert len(pool.asked) > count
    assert again.values.keys() == full.values.keys(), "measuring a part again keeps the rest"


@pytest.mark.parametrize(
    "pool", [Scripted(matmul_float32=[MachineError("the worker server does not start")]), Scripted(
        **{name: [Failure(FailureKind.CRASHED, "boom")] for name in
           ("matmul_float32", "matmul_bfloat16", "matmul_float16", "copy", "triad", "launch")})], ids=["machine", "all"]
)  # fmt: skip
def test_a_study_goes_on_without_ceilings(record, pool):
    notes = []
    assert ceilings_for(record, "cpu", pool=pool, note=notes.append) is None
    assert "not known" in notes[-1]
    assert record.ceilings(machine_environment("cpu")) is None


def test_a_record_that_is_read_only_fails_no_study(tmp_path, record, monkeypatch):
    def refuse(ceilings):
        raise MachineError("a.db cannot be written")

    monkeypatch.setattr(record, "append_ceilings", refuse)
    assert ceilings_for(record, "cpu", pool=Scripted()) is None


def test_what_does_not_matter_to_the_machine_is_left_out():
    known = machine_environment("cpu")
    assert {"cpu", "cores", "torch", "device", "threads"} <= known.keys()
    assert not known.keys() & {"transformers", "autotune", "python", "model", "model_hash", "gpu"}


@pytest.mark.slow
def test_this_machine_is_measured_and_nothing_is_left(tmp_path):
    notes = []
    with open_record(str(tmp_path / "a.db")) as record:
        found = ceilings_for(record, "cpu", note=notes.append)
        assert ceilings_for(record, "cpu", note=notes.append) == found
    assert notes == ["measuring what this machine can do at most, once"]
    assert found.values.keys() == {each.ceiling for each in operations("cpu", quick=True)} | {"cache_bytes"}
    for each in found.values.values():
        assert 0 < each.low <= each.value <= each.high < math.inf
    assert found.value("copy_bytes_per_s") > 1e8
    assert found.value("matmul_float32_flops_per_s") > 1e8
    assert 1e-8 < found.value("launch_s") < 1e-3
    assert not [child for child in psutil.Process().children(recursive=True) if "forkserver" in str(child.cmdline())]


def autotune(*words):
    return CliRunner().invoke(app, ["doctor", *words])


def remembered(path):
    """A record that knows this machine, so that the command need not measure."""
    values = {
        "matmul_float32_flops_per_s": Estimate(1.8e11, 1.7e11, 1.9e11),
        "copy_bytes_per_s": Estimate(2.5e10, 2.4e10, 2.6e10),
        "launch_s": Estimate(3e-6, 2.9e-6, 3.2e-6),
        "allreduce_beta_s_per_byte": Estimate(5e-10, 4e-10, 6e-10),
        "disk_read_bytes_per_s": Estimate(6e8, 5e8, 7e8),
        "cache_bytes": Estimate(2.0**25, 2.0**25, 2.0**25),
    }
    known = Ceilings(values, machine_environment("cpu"), datetime(2026, 1, 2, tzinfo=UTC), ("launch_s",))
    with open_record(str(path)) as record:
        record.append_ceilings(known)
    return known


def test_the_command_prints_ceilings_with_units_and_spread(tmp_path):
    remembered(tmp_path / "a.db")
    done = autotune("--device", "cpu", "--db", str(tmp_path / "a.db"))
    assert done.exit_code == 0, done.output
    for words in ("180 GFLOP/s", "25.0 GB/s", "3.00 us", "500 ps/byte", "600 MB/s", "32.0 MiB", "-5.6%  +5.6%",
                  "disturbed", "2026-01-02", str(tmp_path)[:20]):  # fmt: skip
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "!" not in [line[:1] for line in done.stdout.splitlines() if "SQLite" in line]


def test_the_command_for_programs(tmp_path):
    known = remembered(tmp_path / "a.db")
    done = autotune("--device", "cpu", "--db", str(tmp_path / "a.db"), "--json")
    told = json.loads(done.stdout)
    assert told["ceilings"]["copy_bytes_per_s"] == {
        "value": 2.5e10, "low": 2.4e10, "high": 2.6e10, "unit": "bytes/s", "disturbed": False,
    }  # fmt: skip
    assert told["ceilings"]["launch_s"]["disturbed"] is True
    assert told["environment"] == known.environment
    assert all(set(each) == {"level", "name", "sentence", "mend"} for each in told["findings"])


def test_a_machine_that_cannot_keep_anything_ends_with_3(tmp_path):
    (tmp_path / "file").write_text("")
    done = autotune("--device", "cpu", "--db", str(tmp_path / "file" / "a.db"))
    assert done.exit_code == 3
    assert "✗" in done.stdout
    assert "cannot be created" in " ".join(done.stdout.split())


def test_help_says_what_the_exit_codes_mean():
    done = autotune("--help")
    assert done.exit_code == 0
    assert "--json" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
