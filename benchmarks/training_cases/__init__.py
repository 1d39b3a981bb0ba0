"""Three trainings in plain PyTorch, that every tuner is given alike; nothing here imports autotune."""

from importlib import import_module

from training_cases.case import Case

NAMES = ("input_bound", "compute_bound", "memory_capped")


def load_case(name: str) -> Case:
    """A case by name; only its own module is imported."""
    return import_module(f"training_cases.{name}").CASE
