import os
import time

import pytest

from autotuner.daemon.bundles import Bundles, hash_of
from autotuner.errors import MachineError


def age(folder, seconds=3600.0):
    os.utime(folder, (time.time() - seconds,) * 2)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "rollback").mkdir(parents=True)
    (folder / "a.env").write_text("A=1\n")
    (folder / "rollback" / "a.env").write_text("A=0\n")
    return folder


def test_what_is_kept_is_named_by_its_bytes_and_found_again(tmp_path, source):
    bundles = Bundles(tmp_path / "bundles")
    name = bundles.keep(source)
    assert bundles.keep(source) == name == hash_of(source)
    (source / "a.env").write_text("A=2\n")
    assert (bundles.path(name) / "a.env").read_text() == "A=1\n"
    assert bundles.keep(source) != name
    assert sorted(path.name for path in (tmp_path / "bundles").iterdir()) == sorted({name, hash_of(source)})


def test_names_and_borders_of_files_count(tmp_path, source):
    before = hash_of(source)
    (source / "a.env").rename(source / "b.env")
    assert hash_of(source) != before
    for name, content in (("x", "yz"), ("xy", "z")):
        (tmp_path / f"one{name}").mkdir()
        (tmp_path / f"one{name}" / name).write_text(content)
    assert hash_of(tmp_path / "onex") != hash_of(tmp_path / "onexy")


def test_what_was_changed_or_is_gone_is_not_used(tmp_path, source):
    bundles = Bundles(tmp_path / "bundles")
    name = bundles.keep(source)
    (bundles.path(name) / "a.env").write_text("A=9\n")
    with pytest.raises(MachineError, match="were changed"):
        bundles.path(name)
    with pytest.raises(MachineError, match="is not in"):
        bundles.path("0123456789abcdef")


def test_only_what_is_needed_stays(tmp_path, source):
    bundles = Bundles(tmp_path / "bundles")
    first = bundles.keep(source)
    (source / "a.env").write_text("A=2\n")
    second = bundles.keep(source)
    for name in (first, second):
        age(tmp_path / "bundles" / name)
    bundles.forget({second})
    with pytest.raises(MachineError):
        bundles.path(first)
    assert bundles.path(second).is_dir()


def test_what_another_daemon_is_just_keeping_stays(tmp_path, source):
    """Also where it was there already, or its source is old, or is still being copied."""
    folder, bundles = tmp_path / "bundles", Bundles(tmp_path / "bundles")
    age(source)
    name = bundles.keep(source)
    beside = folder / f".{name}.beside"
    beside.mkdir()
    bundles.forget(())
    assert (bundles.damage(name), beside.is_dir()) == ("", True)
    age(folder / name)
    bundles.keep(source)
    bundles.forget(())
    assert bundles.damage(name) == ""
    (folder / name / "a.env").write_text("damaged")
    bundles.keep(source)
    assert beside.is_dir()
    age(folder / name)
    age(beside)
    bundles.forget(())
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(MachineError, match="cannot keep"):
        Bundles(tmp_path / "file" / "below").keep(make_file(tmp_path))


def make_file(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_a_damaged_one_is_kept_anew_and_what_a_dead_daemon_left_there_is_dropped(tmp_path):
    source, bundles = tmp_path / "source", Bundles(tmp_path / "bundles")
    source.mkdir()
    (source / "config.json").write_text("{}")
    name = bundles.keep(source)
    left = tmp_path / "bundles" / f".{name}.left"
    left.mkdir()
    age(left)
    assert bundles.damage(name) == ""
    (tmp_path / "bundles" / name / "config.json").write_text("[]")
    assert bundles.damage(name).endswith("were changed")
    assert bundles.keep(source) == name
    assert bundles.damage(name) == ""
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [name]


def test_files_that_cannot_be_read_are_damage_and_no_end(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()

    def unreadable(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("autotuner.daemon.bundles.hash_of", unreadable)
    assert "cannot be read: Permission denied" in Bundles(tmp_path).damage("a")
