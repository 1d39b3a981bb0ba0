"""The record: everything the loop knows, in one append-only database."""

from autotuner.store.record import Record, StudyRow, open_record
from autotuner.store.study import Study

__all__ = ["Record", "Study", "StudyRow", "open_record"]
