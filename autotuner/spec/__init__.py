"""Study files: YAML text to a checked, frozen `StudySpec`."""

from autotuner.spec.load import Machine, load, restore
from autotuner.spec.model import Budget, EquivalenceRules, Objective, StudySpec
from autotuner.spec.parameters import Parameter, Rule, Suggestion
from autotuner.spec.schema import json_schema

__all__ = [
    "Budget",
    "EquivalenceRules",
    "Machine",
    "Objective",
    "Parameter",
    "Rule",
    "StudySpec",
    "Suggestion",
    "json_schema",
    "load",
    "restore",
]
