import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.errors import UsageError
from autotuner.spec.yaml import MAX_NODES, parse


def error(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, "x.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gives_plain_values_and_the_line_of_every_key():
    document = parse("a: 1\n# why\nb:\n  - x\n  - {c: 2.5, d: }\n", "x.yaml")
    assert document.data == {"a": 1, "b": ["x", {"c": 2.5, "d": None}]}
    assert document.lines == {(): 1, ("a",): 1, ("b",): 3, ("b", 0): 4, ("b", 1): 5, ("b", 1, "c"): 5, ("b", 1, "d"): 5}


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("null", None), ("~", None), ("+5", 5), ("-0", 0), ("1_000", 1000),
     ("0x1F", 31), ("5.", 5.0), ("-1.5e+3", -1500.0), ("'off'", "off"), ('"012"', "012"), ("1.5.2", "1.5.2"),
     ("latency <= 3 s", "latency <= 3 s"), ("[1, a]", [1, "a"])],
)  # fmt: skip
def test_plain_words(text, value):
    read = parse(f"a: {text}", "x.yaml").data["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("off", "`off` means false in YAML (write 'off' in quotes, or false)"),
        ("Yes", "`Yes` means true in YAML (write 'Yes' in quotes, or true)"),
        ("n", "`n` means false in YAML"),
        ("012", "`012` means 10 (octal) in YAML (write 12, or '012' in quotes)"),
        ("12:30:45", "`12:30:45` means 45045 (base 60) in YAML"),
        ("1e-5", "`1e-5` is text in YAML, not a number (write 1.0e-5"),
        ("1.5e3", "write 1.5e+3"),
        ("2024-01-31", "is a date in YAML"),
        (".inf", "is not a finite number"),
    ],
)
def test_says_what_yaml_makes_of_a_word_and_what_to_write_instead(word, said):
    assert said in error(f"a: {word}")
    for where in (f"# comment\na: {word}", f"# comment\n{word}: 1"):
        assert error(where).startswith(f"x.yaml:2: `{word}` ")


def test_duplicate_keys_name_both_lines():
    assert error("a: 1\nb: 2\na: 3") == "x.yaml:3: 'a' was already given in line 1 (keep one of them)"


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "a: 1\n---\nb: 2", "a:\n\tb: 1", "\ta: 1", "a: [", "a: 'x", "a: b: c", "1: 2", "null: 1",
     "? [a]\n: b", "a\0b", "a: \x07", "x\ud800", "a: !!python/object:os.system ls", "a: !mine 1", "<<: {a: 1}",
     "a: *b", "a: &a [*a]", "a: 9223372036854775808", "a: " + "9" * 5000, "[" * 500_000, "{a: " * 200_000,
     "- " * 40 + "1", "- 1\n" * (MAX_NODES + 1), "x" * (2**20 + 1), "&a a: 1\n*a : 2"],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_refuses(text):
    assert error(text).startswith("x.yaml:")


def test_an_alias_bomb_is_counted_and_not_built():
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for level in range(1, 30):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert "unfolds into more than" in error(bomb)


def test_aliases_are_copies():
    data = parse("a: &a [1]\nb: *a", "x.yaml").data
    data["a"].append(2)
    assert data["b"] == [1]


def test_a_tab_and_a_second_document_are_named():
    assert error("a:\n\tb: 1") == "x.yaml:2: a tab stands where only spaces may (indent with spaces)"
    assert error("a: 1\n---\nb: 2").startswith("x.yaml:2: a second document")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="ab:- \n\t[]{}&*!|>'\"#%?,1.~\\", max_size=60))
def test_any_text_is_a_document_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        parse(text, "x.yaml")
