"""Texts with names in braces."""

import pytest

from autotuner.errors import InvalidConfigError
from autotuner.workloads.templates import Conditional, fill, fill_arguments, fill_data, misfit, names_in

VALUES = {"threads": 4, "flash": True, "type": "q8_0", "none": None, "max.len-1": 9}


def test_names_are_filled_in_and_other_braces_left():
    assert fill("-t {threads} {flash} [{none}] {max.len-1}", VALUES) == "-t 4 true [] 9"
    assert fill('{"a": {"b": {}}} {{threads}} ${HOME', VALUES) == '{"a": {"b": {}}} {threads} ${HOME'


def test_an_unknown_name_is_an_error():
    with pytest.raises(InvalidConfigError, match=r"\{tread\} is no parameter .*\{\{tread\}\}"):
        fill("{tread}", VALUES)


def test_a_value_alone_keeps_its_type():
    data = {"n": "{threads}", "on": ["{flash}", 1, None], "text": "{threads}!"}
    assert fill_data(data, VALUES) == {"n": 4, "on": [True, 1, None], "text": "4!"}


def test_arguments_with_a_condition():
    when = Conditional.model_validate({"if": "threads > 2", "args": ["--type", "{type}"]})
    assert fill_arguments(["run", when], VALUES) == ["run", "--type", "q8_0"]
    assert fill_arguments(["run", when], {**VALUES, "threads": 1}) == ["run"]
    assert set(names_in(["{flash}", when, {"a": "{{x}}"}])) == {"flash", "threads", "type"}


def test_what_does_not_fit():
    assert misfit(["a", "port"], {"a": 1}, ["port"], "argv") == ""
    assert misfit(["b"], {"a": 1}, [], "argv") == "{b} is no parameter"
    assert misfit([], {"a": 1}, [], "argv") == "a is used nowhere: write {a} into argv"
