"""A diff of the user's own file, which git takes, and which changes the values and nothing else."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from recommended import recommend

from autotuner.errors import UsageError
from autotuner.exporters.bundle import make_bundle, write_bundle
from autotuner.exporters.patch_file import PatchExporter
from autotuner.exporters.places import Place, find_places
from autotuner.exporters.rewriting import rewrite
from autotuner.exporting import run_checks

CONFIG = {"batch_size": 32, "compile": True, "dtype": "bfloat16", "depth": None}
SUBJECT = recommend(CONFIG, {"batch_size": 8, "compile": False, "dtype": "float32", "depth": None}, {})

PYTHON = """\
import argparse
ü = "é"; batch_size = 8  # ours
def train(*, compile=False, lr=1e-3): ...
model = load(name, dtype="float32",
             batch=batch_size)
"""
YAML = "# ours\ntraining:\n    batch_size:   8   # per GPU\n    compile: off\nmodel: {dtype: 'float32', x: [1, 2]}\n"
JSON = '{\n\t"batch_size": 8, "compile": false,\n  "dtype": "float32"\n}'
TOML = '[train]\nbatch_size = 8 # ours\ncompile = false\ndtype = "float32"\n'
ENV = "# ours\nbatch_size=8\nexport compile=false\ndtype='float32'\n"
FILES = [
    ("train.py", PYTHON, ['ü = "é"; batch_size = 32  # ours', "def train(*, compile=True, lr=1e-3): ...",
                          "model = load(name, dtype='bfloat16',"]),
    ("conf/a.yaml", YAML, ["    batch_size:   32   # per GPU", "    compile: true",
                           "model: {dtype: bfloat16, x: [1, 2]}"]),
    ("a.json", JSON, ['\t"batch_size": 32, "compile": true,', '  "dtype": "bfloat16"']),
    ("a.toml", TOML, ["batch_size = 32 # ours", "compile = true", 'dtype = "bfloat16"']),
    ("a.env", ENV, ["batch_size=32", "export compile=true", "dtype=bfloat16"]),
]  # fmt: skip


@pytest.fixture
def repository(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize(("name", "text", "expected"), FILES, ids=[name for name, _, _ in FILES])
def test_git_applies_it_and_takes_it_back(repository, tmp_path, name, text, expected):
    file = repository / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    exporter = PatchExporter(file=file)
    bundle = make_bundle(exporter, SUBJECT)
    assert [check.passed for check in run_checks(exporter, bundle)] == [True]
    out = write_bundle(bundle, tmp_path / "out")
    subprocess.run(["git", "apply", out / f"{file.name}.patch"], cwd=repository, check=True)
    changed = [new for old, new in zip(text.splitlines(), file.read_text().splitlines(), strict=True) if old != new]
    assert changed == expected
    subprocess.run(["git", "apply", out / "rollback" / f"{file.name}.patch"], cwd=repository, check=True)
    assert file.read_text() == text


def of_ones_own(**config):
    return recommend(config, dict.fromkeys(config, 8), {})


SIZE = of_ones_own(batch_size=32)
EXACT = [
    ("a.py", b"batch_size = 8\r\nx = 1\r\n", b"batch_size = 32\r\nx = 1\r\n"),
    ("a.py", b"x = 1\rbatch_size = 8\n", b"x = 1\rbatch_size = 32\n"),
    ("a.py", b"a = 1\n\x0cb = 111111111111\nbatch_size = 8\n", b"a = 1\n\x0cb = 111111111111\nbatch_size = 32\n"),
    ("a.py", b"a = 1\n\x0c\nbatch_size = 8\nz = 99999999\n", b"a = 1\n\x0c\nbatch_size = 32\nz = 99999999\n"),
    ("a.py", "x = 'a\u2028b'\nbatch_size = 8\nz = 999\n".encode(),
     "x = 'a\u2028b'\nbatch_size = 32\nz = 999\n".encode()),
    ("a.py", b'p.add_argument("--batch-size", "-b", default=8)',
     b'p.add_argument("--batch-size", "-b", default=32)'),
    ("a.py", b'p.add_argument("--bs", dest="batch_size", default=8)',
     b'p.add_argument("--bs", dest="batch_size", default=32)'),
    ("a.py", b'p.add_argument("batch_size", nargs="?", default=8)',
     b'p.add_argument("batch_size", nargs="?", default=32)'),
    ("a.yaml", b"batch_size: 8\r\nx: 1\r\n", b"batch_size: 32\r\nx: 1\r\n"),
    ("a.yaml", b"batch_size:\nx: 1\n", b"batch_size: 32\nx: 1\n"),
    ("a.yaml", b"batch_size:  # ours\n", b"batch_size: 32  # ours\n"),
    ("a.yaml", b"batch_size: &size 8\nx: 1\n", b"batch_size: &size 32\nx: 1\n"),
    ("a.yaml", "x: 'a\u2028b'\nbatch_size: 8\n".encode(), "x: 'a\u2028b'\nbatch_size: 32\n".encode()),
    ("a.json", b'{"x": 1,\r\n\t"batch_size": 8}\r\n', b'{"x": 1,\r\n\t"batch_size": 32}\r\n'),
    ("a.toml", b"batch_size = 8\r\nx = 1 # y\r\n", b"batch_size = 32\r\nx = 1 # y\r\n"),
    ("a.env", b"batch_size=8\r\nx=1\r\n", b"batch_size=32\r\nx=1\r\n"),
    ("a.env", b"x=1\nbatch_size=\n", b"x=1\nbatch_size=32\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), EXACT)
def test_git_makes_the_very_bytes_that_are_wanted(repository, tmp_path, name, content, expected):
    (repository / name).write_bytes(content)
    out = write_bundle(make_bundle(PatchExporter(file=name), SIZE), tmp_path / "out")
    subprocess.run(["git", "apply", out / f"{name}.patch"], cwd=repository, check=True)
    assert (repository / name).read_bytes() == expected
    subprocess.run(["git", "apply", out / "rollback" / f"{name}.patch"], cwd=repository, check=True)
    assert (repository / name).read_bytes() == content


@pytest.mark.parametrize(
    ("name", "before"),
    [("a.py", 'dtype = "float32"\nbatch_size = 8\n'), ("a.yaml", "dtype: 'float32'\nbatch_size: 8\n"),
     ("a.env", "dtype='float32'\nbatch_size=8\n")],
)  # fmt: skip
def test_what_the_winner_keeps_keeps_its_spelling(repository, tmp_path, name, before):
    kept = recommend({"dtype": "float32", "batch_size": 32}, {"dtype": "float32", "batch_size": 8}, {})
    (repository / name).write_text(before)
    out = write_bundle(make_bundle(PatchExporter(file=name), kept), tmp_path / "out")
    subprocess.run(["git", "apply", out / f"{name}.patch"], cwd=repository, check=True)
    assert (repository / name).read_text() == before.replace("8", "32")


@pytest.mark.parametrize("value", ["a, b", "a: b", "[x]", "# no", "off", "1e-5", "ü 'n' \"n\"", 1e-5, True, -1, ""])
@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("a.yaml", "m: {batch_size: flash, x: 1}\n", lambda text: yaml.safe_load(text)["m"]),
        ("a.yaml", "batch_size: flash\nx: 1\n", yaml.safe_load),
        ("a.json", '{"batch_size": "flash", "x": 1}', json.loads),
        ("a.toml", "batch_size = 'flash'\nx = 1\n", tomllib.loads),
        ("a.py", "batch_size = 'flash'; x = 1\n", lambda text: {k: v for k, v in run(text).items() if k[0] != "_"}),
    ],
)
def test_any_value_is_read_back(name, text, read, value):
    file = Path(name)
    (place,) = find_places(text, file, "batch_size")
    assert repr(read(rewrite(text, file, {place: value}))) == repr({"batch_size": value, "x": 1})


def run(text):
    space = {}
    exec(text, space)
    return space


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "batch_size: &size 8\nother: *size\n"),  # which would change too
        ("a.yaml", "batch_size: !!str 8\n"),
        ("a.yaml", "m: {batch_size, x: 1}\n"),
        ("a.yaml", "batch_size: |\n  8\nx: 1\n"),
        ("a.toml", 'x = """\nbatch_size = 8\n"""\n'),  # a text
    ],
)
def test_a_file_that_would_say_something_else_too_is_refused(repository, name, text):
    (repository / name).write_text(text)
    with pytest.raises(UsageError, match="would not say what is wanted, or say more"):
        PatchExporter(file=name).draft(SIZE.config, SIZE)


def test_a_place_that_is_none_is_refused():
    text = "b = 111111111111\nbatch_size = 8\n"
    for place in (Place(6, 7, 1), Place(0, 1, 1), Place(16, 17, 1)):
        with pytest.raises(UsageError, match="would not say what is wanted"):
            rewrite(text, Path("a.py"), {place: 32})


def test_a_parameter_without_a_value_is_named_where_the_file_has_one(repository):
    (repository / "a.py").write_text("depth = 4\nbatch_size = 8\n")
    subject = of_ones_own(batch_size=32, depth=None, other=None)
    drawn = PatchExporter(file="a.py").draft(subject.config, subject)
    assert drawn.left_out == {"depth": "it has no value, and a.py keeps its own in line 1"}


def test_lists_are_no_values(repository):
    (repository / "a.toml").write_text("batch_size = [8, 16]\n")
    with pytest.raises(UsageError, match="has none of the parameters"):
        PatchExporter(file="a.toml").draft(SIZE.config, SIZE)


def test_a_name_of_ones_own_and_one_that_is_not_there(repository):
    (repository / "a.py").write_text("BATCH = 8\n")
    drawn = PatchExporter(file="a.py", names={"batch_size": "BATCH"}).draft(CONFIG, SUBJECT)
    assert b"+BATCH = 32" in drawn.files["a.py.patch"]
    assert drawn.left_out.keys() == {"compile", "dtype"}


def test_several_places_are_a_question(repository):
    (repository / "a.py").write_text("batch_size = 8\nbatch_size = 9\n")
    with pytest.raises(UsageError, match="says batch_size in lines 1, 2") as refused:
        PatchExporter(file="a.py").draft(CONFIG, SUBJECT)
    assert "--set names.batch_size=batch_size:1" in refused.value.hint
    drawn = PatchExporter(file="a.py", names={"batch_size": "batch_size:2"}).draft(CONFIG, SUBJECT)
    assert b"-batch_size = 9\n+batch_size = 32" in drawn.files["a.py.patch"]


def test_a_path_of_keys(repository):
    (repository / "a.yaml").write_text("train: {size: 8}\ntest: {size: 9}\n")
    drawn = PatchExporter(file="a.yaml", names={"batch_size": "test.size"}).draft(CONFIG, SUBJECT)
    assert b"+test: {size: 32}" in drawn.files["a.yaml.patch"]


def test_only_literals_are_changed(repository):
    (repository / "a.py").write_text("batch_size = 2 * per_gpu\ntrain(batch_size=args.batch)\n")
    with pytest.raises(UsageError, match="has none of the parameters"):
        PatchExporter(file="a.py").draft(CONFIG, SUBJECT)


def test_defaults_of_options_and_keys_of_dicts(repository):
    (repository / "a.py").write_text(
        'parser.add_argument("-b", "--batch-size", type=int, default=8)\nOPTIONS = {"compile": False}\n'
    )
    drawn = PatchExporter(file="a.py").draft(CONFIG, SUBJECT).files["a.py.patch"]
    assert b"default=32)" in drawn
    assert b'+OPTIONS = {"compile": True}' in drawn


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.py", "batch_size = = 8\n", "cannot read"),
        ("a.toml", "x\n", "cannot read"),
        ("a.yaml", "a: [\n", "cannot read"),
    ],
)
def test_a_file_that_is_broken(repository, name, text, said):
    (repository / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        PatchExporter(file=name).draft(CONFIG, SUBJECT)


def test_no_file():
    with pytest.raises(UsageError, match="needs a file"):
        PatchExporter().draft(CONFIG, SUBJECT)
    with pytest.raises(UsageError, match=r"cannot read nothing\.py: No such file"):
        PatchExporter(file="nothing.py").draft(CONFIG, SUBJECT)
