"""What every target's bundle keeps: refusal, proof, the way back, all or nothing."""

import ctypes
import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from recommended import PLAIN, SPACES, decided

from autotuner.errors import MachineError, UsageError
from autotuner.exporters.bundle import make_bundle, write_bundle
from autotuner.exporters.env_file import EnvExporter
from autotuner.exporters.json_file import JsonExporter
from autotuner.exporting import draw, recommendation
from autotuner.records import open_record
from autotuner.spec import load
from autotuner.types import (
    Decision,
    Diagnosis,
    Failure,
    FailureKind,
    Measurement,
    Origin,
    Trial,
    Verdict,
    Verification,
)

JSON = JsonExporter()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_proof_and_the_way_back(tmp_path):
    folder = write_bundle(make_bundle(JSON, PLAIN), tmp_path / "out")
    found = contents(folder)
    assert found.keys() == {"serve.json", "rollback/serve.json", "README.md", "evidence.json"}
    assert json.loads(found["serve.json"]) == dict(PLAIN.config)
    assert json.loads(found["rollback/serve.json"]) == dict(PLAIN.baseline)
    evidence = json.loads(found["evidence.json"])
    assert (evidence["format"], evidence["decision"], evidence["forced"]) == ("autotune/1", "BETTER", [])
    assert (evidence["gain_ratio"], evidence["gain_interval"]) == (1.31, [1.25, 1.38])
    assert [pair["candidate"] for pair in evidence["pairs"]] == [131.0, 132.0]
    assert evidence["equivalence"]["tier"] == "rounding"
    assert evidence["contributions"][0]["gain_interval"] == [0.0, None]
    assert evidence["environment"] == {"gpu": "NVIDIA H200", "torch": "2.13.0"}
    assert evidence["files"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in found.items() if name != "evidence.json"
    }
    readme = found["README.md"].decode()
    assert "BETTER: 1.31 times the throughput." in readme
    assert "`rollback/` holds the same files" in readme


@pytest.mark.parametrize("decision", [d for d in Decision if d is not Decision.BETTER])
def test_what_is_not_better_is_refused_unless_forced_which_is_said(decision):
    other = decided(PLAIN, decision)
    with pytest.raises(UsageError, match=f"{decision}, not BETTER") as refused:
        make_bundle(JSON, other)
    assert "--force" in refused.value.hint
    bundle = make_bundle(JSON, other, force=True)
    assert json.loads(bundle.files["evidence.json"])["forced"] == [f"{decision}, not BETTER: no difference above 3 %"]
    assert f"FORCED: {decision}, not BETTER" in bundle.files["README.md"].decode()


def test_what_nobody_knows_where_it_was_proven_is_refused():
    with pytest.raises(UsageError, match="the record names no machine"):
        make_bundle(JSON, dataclasses.replace(PLAIN, environment={}))


def test_failures_after_it_do_not_hide_where_a_winner_was_measured(tmp_path):
    """Fifty crashes after a winner that a replayed GPU made: it is still the replay's."""
    spec = load(SPACES / "inference.yaml")
    outcome = Measurement({"x": (1.0,)}, 0, 0, 0, {}, {"gpu": "NVIDIA H200 (replay)"}, datetime.now(UTC))
    won = Trial(0, spec.baseline, Origin.BASELINE, outcome, Verdict({"x": 1.0}, {}, Diagnosis("unknown")))
    lost = [Trial(n, spec.baseline, Origin.SAMPLER, Failure(FailureKind.CRASHED, "no"), None) for n in range(1, 80)]
    proof = Verification(Decision.BETTER, "It is.", spec.baseline, spec.baseline, "x", 2.0, (1.9, 2.1))
    with open_record(str(tmp_path / "record.db"), create=True) as record:
        study = record.create(spec, "old")
        study.append_trials([won, *lost])
        study.append_verification(proof)
        with pytest.raises(UsageError, match="plays values back"):
            draw(study, "json", force=True)
        study.append_verification(dataclasses.replace(proof, environment={"gpu": "NVIDIA H200"}))
        assert recommendation(study).environment == {"gpu": "NVIDIA H200"}, "it was confirmed on a real one"


@pytest.mark.parametrize("refused", [False, True], ids=["exchanged", "one after the other"])
def test_a_link_is_followed_and_nothing_is_left_beside_it(tmp_path, monkeypatch, refused):
    if refused:  # as NFS does

        class Refusing:
            def renameat2(self, *_):
                ctypes.set_errno(errno.EINVAL)
                return -1

        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Refusing())
    bundle, place = make_bundle(JSON, PLAIN), tmp_path / "out"
    write_bundle(bundle, place)
    (tmp_path / "link").symlink_to(place)
    changed = dataclasses.replace(PLAIN, config={**PLAIN.config, **dict.fromkeys(list(PLAIN.config)[:1], 7)})
    write_bundle(make_bundle(JSON, changed), tmp_path / "link", force=True)
    assert json.loads((place / "serve.json").read_bytes()) == dict(changed.config)
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


def test_force_alone_makes_nothing_forced():
    assert make_bundle(JSON, PLAIN, force=True) == make_bundle(JSON, PLAIN)


def test_other_hardware_than_stated_is_refused():
    assert make_bundle(JSON, PLAIN, hardware="h200") == make_bundle(JSON, PLAIN)
    with pytest.raises(UsageError, match="proven on NVIDIA H200, not on H100"):
        make_bundle(JSON, PLAIN, hardware="H100")
    bundle = make_bundle(JSON, PLAIN, hardware="H100", force=True)
    assert "FORCED: proven on NVIDIA H200, not on H100" in bundle.files["README.md"].decode()


def test_a_cpu_is_hardware_too():
    on_cpu = dataclasses.replace(PLAIN, environment={"cpu": "AMD EPYC 9B14"})
    make_bundle(JSON, on_cpu, hardware="epyc")
    with pytest.raises(UsageError, match="not on H100"):
        make_bundle(JSON, on_cpu, hardware="H100")


def test_what_was_played_back_is_refused_with_force_too():
    replayed = dataclasses.replace(PLAIN, environment={"gpu": "NVIDIA H200 (replay)"})
    with pytest.raises(UsageError, match="plays values back"):
        make_bundle(JSON, replayed, force=True)


def test_a_bundle_is_replaced_only_by_force(tmp_path):
    folder = write_bundle(make_bundle(JSON, PLAIN), tmp_path / "out")
    (folder / "serve.json").write_text("mine")
    before = contents(folder)
    with pytest.raises(UsageError, match="is there already"):
        write_bundle(make_bundle(JSON, PLAIN), folder)
    assert contents(folder) == before
    write_bundle(make_bundle(EnvExporter(), PLAIN), folder, force=True)
    assert "serve.env" in contents(folder)
    assert "serve.json" not in contents(folder)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours_is_kept(tmp_path, force):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match="keeps it" if force else "is there already"):
        write_bundle(make_bundle(JSON, PLAIN), tmp_path, force=force)
    assert contents(tmp_path) == {"thesis.tex": b"years"}


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    (tmp_path / "out").mkdir()
    assert "serve.json" in contents(write_bundle(make_bundle(JSON, PLAIN), tmp_path / "out"))


def test_files_can_be_read_and_scripts_run_by_all(tmp_path):
    folder = write_bundle(make_bundle(EnvExporter(), PLAIN), tmp_path / "out")
    assert folder.stat().st_mode & 0o777 == (folder / "rollback").stat().st_mode & 0o777 == 0o755
    assert (folder / "serve.env").stat().st_mode & 0o777 == 0o644


def test_a_directory_that_cannot_be_written_is_the_machines(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"cannot write .*below"):
        write_bundle(make_bundle(JSON, PLAIN), tmp_path / "file" / "below")


def test_a_full_disk_leaves_the_old_bundle_and_no_rest(tmp_path):
    folder = write_bundle(make_bundle(JSON, PLAIN), tmp_path / "out")
    before = contents(folder)
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from autotuner.errors import MachineError; from autotuner.exporters.bundle import Bundle, write_bundle\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: write_bundle(Bundle({'a': b'x' * 5000}, '', {}), Path(sys.argv[1]), force=True)\n"
        "except MachineError as error: sys.exit(error.exit_code)\n"
    )
    env = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", program, str(folder)], env=env, check=False)
    assert done.returncode == 3
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_left_out_parameters_are_named_in_the_bundle():
    from autotuner.exporters.torchrun import TorchrunExporter

    with pytest.raises(UsageError, match="torchrun can be told nothing of what serve changes: batch_size, compile"):
        make_bundle(TorchrunExporter(), PLAIN)
    bundle = make_bundle(TorchrunExporter(), PLAIN, force=True)
    assert "batch_size = 32" in bundle.files["README.md"].decode()
    assert "batch_size" in json.loads(bundle.files["evidence.json"])["left_out"]


def test_no_way_back_is_promised_where_nothing_changes():
    from autotuner.exporters.torchrun import TorchrunExporter

    bundle = make_bundle(TorchrunExporter(), PLAIN, force=True)
    assert not any(name.startswith("rollback/") for name in bundle.files)
    readme = bundle.files["README.md"].decode()
    assert "rollback" not in readme
    assert "what was run before makes the same files" in readme
