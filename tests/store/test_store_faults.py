"""Whatever happens to the file or the machine: one clear line with the path, and nothing acknowledged is lost."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from autotuner.errors import AutotuneError, MachineError, UsageError
from autotuner.store import open_record
from autotuner.store.database import open_database


def fill(path, spec, tools, count=20):
    with open_record(str(path)) as record:
        record.create(spec, "tiny").append_trials(tools.trial(number) for number in range(count))


def read_all(path):
    with open_record(str(path), busy_timeout_s=0.2) as record:
        record.overview()
        study = record.study("tiny")
        return study.spec(), study.trials(), study.failures(), study.verifications(), study.events()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount:
        pytest.skip("only root can mount")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def append_until_refused(study, tools):
    acknowledged = study.count()
    while True:
        try:
            study.append_trial(tools.trial(acknowledged))
        except MachineError as error:
            return acknowledged, error
        acknowledged += 1


def test_a_full_disk_keeps_what_was_acknowledged(small_disk, spec, tools):
    path = small_disk / "autotune.db"
    ballast = small_disk / "ballast"
    with open_record(str(path)) as record:
        study = record.create(spec, "tiny")
        ballast.write_bytes(bytes(750_000))
        acknowledged, error = append_until_refused(study, tools)
        assert acknowledged > 10
        assert str(path) in error.message
        assert "cannot grow: the disk is full" in error.message
        assert study.trials() == [tools.trial(number) for number in range(acknowledged)]
        ballast.unlink()
        study.append_trial(tools.trial(acknowledged))
    assert read_all(path)[1] == [tools.trial(number) for number in range(acknowledged + 1)]


def test_a_file_size_limit_is_a_clear_error(path, spec, tools):
    fill(path, spec, tools, 1)
    acknowledged, told = os.pipe()

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40_000, resource.RLIM_INFINITY))
        with open_record(str(path)) as record:
            number, error = append_until_refused(record.study("tiny"), tools)
        assert str(path) in error.message
        os.write(told, str(number).encode())

    assert tools.wait(tools.elsewhere(run)) == 0
    count = int(os.read(acknowledged, 20))
    os.close(acknowledged), os.close(told)
    assert read_all(path)[1] == [tools.trial(number) for number in range(count)]


def test_a_read_only_disk_can_be_read(small_disk, spec, tools):
    path = small_disk / "autotune.db"
    fill(path, spec, tools)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert len(read_all(path)[1]) == 20
    with open_record(str(path)) as record:
        with pytest.raises(MachineError, match="read-only") as caught:
            record.study("tiny").append_event("started")
        assert str(path) in caught.value.message
        with pytest.raises(MachineError, match="cannot be written"), record.lock("tiny"):
            pass
    with pytest.raises(MachineError, match=r"new\.db"), open_record(str(small_disk / "new.db")):
        pass


@pytest.mark.parametrize("where", ["file/autotune.db", "file/deeper/autotune.db", "folder", "/proc/autotune.db"])
def test_a_place_that_cannot_hold_a_file(tmp_path, where):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MachineError) as caught, open_record(str(tmp_path / where)):
        pass
    assert where.split("/")[0] in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_busy_writer_lets_others_read_and_makes_writers_wait(path, spec, tools):
    fill(path, spec, tools)
    with tools.locked(path, "IMMEDIATE"), open_record(str(path), busy_timeout_s=0.1) as record:
        study = record.study("tiny")
        assert study.count() == 20
        with pytest.raises(MachineError, match="another process is writing") as caught:
            study.append_trial(tools.trial(20))
        assert str(path) in caught.value.message
    with open_record(str(path)) as record:
        record.study("tiny").append_trial(tools.trial(20))


@pytest.mark.parametrize("immediate", [True, False], ids=["writing", "reading"])
def test_what_an_interruption_left_open_is_not_waited_for(path, immediate):
    """Between a transaction's beginning and its `with`: while the traceback is alive, so is the transaction."""
    with open_database(f"sqlite:///{path}", 0.5, create=True) as database:
        left = database.writing() if immediate else database.reading()
        left.__enter__().exec_driver_sql("SELECT * FROM sqlite_master").all()
        with database.writing() as connection:
            connection.exec_driver_sql("UPDATE autotune_revision SET version_num = version_num")
        assert left is not None


def test_after_an_interruption_at_any_moment_its_thread_can_write(path):
    """In a statement, between two, at the beginning or at the end: on the way out something is always written."""

    asked = []

    def interrupt(*_):
        asked.append(True)
        raise KeyboardInterrupt

    draw, before = random.Random(0), signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(40):
            with open_database(f"sqlite:///{path}", 2.0, create=True) as database:
                try:
                    asked.clear()
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.001, 0.02))
                    while not asked:  # the interpreter drops one that comes in a destructor
                        with database.writing() as connection:
                            connection.exec_driver_sql("UPDATE autotune_revision SET version_num = version_num")
                except KeyboardInterrupt:
                    with database.writing() as connection:
                        connection.exec_driver_sql("UPDATE autotune_revision SET version_num = version_num")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_another_thread_does_is_waited_for(path):
    with open_database(f"sqlite:///{path}", 0.2, create=True) as database, ThreadPoolExecutor(1) as other:
        writing = other.submit(database.writing).result()
        other.submit(writing.__enter__).result()
        with pytest.raises(MachineError, match="locked"), database.writing():
            pass
        other.submit(writing.__exit__, None, None, None).result()
        with database.writing():
            pass


def test_an_exclusive_lock_is_named_at_opening(path, spec, tools):
    fill(path, spec, tools)
    with (
        tools.locked(path, "EXCLUSIVE"),
        pytest.raises(MachineError, match="locked"),
        open_record(str(path), busy_timeout_s=0.1),
    ):
        pass


def test_a_file_that_is_no_database(path):
    path.parent.mkdir()
    path.write_text("name: tiny\n" * 500)
    with pytest.raises(MachineError, match="file is not a database") as caught, open_record(str(path)):
        pass
    assert str(path) in caught.value.message
    assert "backup" in caught.value.hint


def test_another_programs_database_is_refused_and_left_alone(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="another program"), open_record(str(path)):
        pass
    assert path.read_bytes() == before
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE recipes")
        connection.execute("PRAGMA application_id = 7")
    with pytest.raises(UsageError, match="another program"), open_record(str(path)):
        pass


@pytest.mark.parametrize(("url", "words"), [
    ("sqlite://", "names no file"),
    ("sqlite:///:memory:", "names no file"),
    ("mysql://u:secret@host/db", "not supported"),
    ("nonsense://u:secret@host", "not supported"),
    ("postgresql://u:secret@host:port/db", "not the URL"),
])  # fmt: skip
def test_a_url_that_cannot_be_meant(url, words):
    with pytest.raises(UsageError, match=words) as caught, open_record(url):
        pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("keep_ratio", [0.01, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_damaged_at_opening(path, spec, tools, keep_ratio):
    fill(path, spec, tools)
    os.truncate(path, int(path.stat().st_size * keep_ratio))
    with pytest.raises(MachineError, match="damaged") as caught, open_record(str(path)):
        pass
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)


def test_pages_of_zeros_are_damage_at_opening(path, spec, tools):
    fill(path, spec, tools)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    with pytest.raises(MachineError, match="damaged"), open_record(str(path)):
        pass


def test_damage_points_at_the_newest_backup(path, spec, tools):
    fill(path, spec, tools)
    copy = path.with_name("autotune.db.0000.backup")
    copy.write_bytes(path.read_bytes())
    os.truncate(path, 5000)
    with pytest.raises(MachineError) as caught:
        read_all(path)
    assert str(copy) in caught.value.hint


@pytest.mark.parametrize(("found", "put"), [
    (b"CREATE TABLE event", b"CREATE TABL\xc6 event"),  # SQLite quotes it, and Python cannot decode the quotation
    (b"CREATE TABLE event", b"CREATE TABLE evenx"),
    (b"CREATE TABLE event", b"CREATE BABEL event"),
])  # fmt: skip
def test_a_broken_schema_is_damage(path, spec, tools, found, put):
    fill(path, spec, tools)
    path.write_bytes(path.read_bytes().replace(found, put))
    with pytest.raises(MachineError, match="damaged"):
        read_all(path)


def complaint(path):
    try:
        read_all(path)
    except AutotuneError as error:
        return error.message
    return ""


def test_flipped_bytes_are_an_error_or_harmless_and_never_a_traceback(path, spec, tools):
    fill(path, spec, tools, 8)
    whole, truth, draw, refused = path.read_bytes(), read_all(path), random.Random(5), 0
    for _ in range(50):
        broken = bytearray(whole)
        for _ in range(8):
            broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        message = complaint(path)
        refused += bool(message)
        assert not message or str(path) in message
    assert refused > 15
    path.write_bytes(whole)
    assert read_all(path) == truth


def test_a_broken_blob_is_named(path, spec, tools):
    fill(path, spec, tools)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sample SET body = substr(body, 1, 30) WHERE number = 3")
    with open_record(str(path)) as record:
        study = record.study("tiny")
        with pytest.raises(MachineError, match="study 'tiny' cannot be read"):
            study.trial(3)
        assert study.trial(2) == tools.trial(2)
        assert len(study.trials(samples=False)) == 20


def test_a_record_of_a_newer_version_is_left_alone(path, spec, tools):
    fill(path, spec, tools)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE autotune_revision SET version_num = '9999'")
    before = path.read_bytes()
    with (
        pytest.raises(MachineError, match=r"newer autotune \(revision 9999\) \(upgrade autotune\)"),
        open_record(str(path)),
    ):
        pass
    assert path.read_bytes() == before
