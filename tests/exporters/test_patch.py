"""A diff of the user's own file, which git takes, and which changes the values and nothing else."""

import subprocess

import pytest
from recommended import recommend

from autotuner.errors import UsageError
from autotuner.exporters.bundle import make_bundle, write_bundle
from autotuner.exporters.patch_file import PatchExporter
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
