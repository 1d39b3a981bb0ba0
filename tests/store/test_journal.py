"""The journal of a service: one leader, whose entries are the only ones."""

from datetime import UTC, datetime

import pytest

from autotuner.daemon.machine import begin
from autotuner.errors import UsageError
from autotuner.store import open_record
from autotuner.store.journal import LeaseLostError

AT = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def record(tmp_path):
    with open_record(str(tmp_path / "record.db"), create=True) as record:
        yield record


@pytest.fixture
def journal(record):
    return record.journal("chat")


def test_one_leads_until_its_lease_is_over(journal):
    assert journal.acquire("one", 100.0, 10.0) == 1
    assert journal.acquire("other", 105.0, 10.0) is None
    assert journal.acquire("one", 105.0, 10.0) == 1, "it renews"
    assert journal.acquire("other", 114.9, 10.0) is None
    assert journal.acquire("other", 115.1, 10.0) == 2
    assert journal.acquire("one", 116.0, 10.0) is None


def test_who_slept_through_its_lease_writes_nothing_more(journal):
    first = journal.acquire("one", 100.0, 10.0)
    journal.append(first, "alert", {"n": 1})
    second = journal.acquire("other", 120.0, 10.0)
    with pytest.raises(LeaseLostError, match="another daemon leads 'chat'"):
        journal.append(first, "alert", {"n": 2})
    with pytest.raises(LeaseLostError):
        journal.forget(first, 1)
    journal.append(second, "alert", {"n": 3})
    assert [(entry.token, entry.payload["n"]) for entry in journal.entries()] == [(1, 1), (2, 3)]


def test_after_its_lease_a_leader_goes_on_unless_somebody_took_over(journal):
    assert journal.acquire("one", 100.0, 10.0) == 1
    assert journal.acquire("one", 111.0, 10.0) == 1, "nobody else led meanwhile"
    assert journal.acquire("two", 122.0, 10.0) == 2
    assert journal.acquire("one", 133.0, 10.0) == 3
    with pytest.raises(LeaseLostError):
        journal.append(1, "late", {})


def test_who_lets_go_lets_the_next_one_lead_at_once(journal):
    token = journal.acquire("one", 100.0, 10.0)
    journal.release(token)
    assert journal.acquire("other", 100.1, 10.0) == 2


def test_a_person_needs_no_lease(journal):
    journal.tell("freeze", {"by": "me"})
    (entry,) = journal.entries(kinds=("freeze",))
    assert (entry.token, entry.payload) == (0, {"by": "me"})


def test_entries_are_read_from_where_one_stopped(journal):
    token = journal.acquire("one", 0.0, 10.0)
    for number in range(6):
        journal.append(token, "even" if number % 2 == 0 else "odd", {"n": number})
    entries = list(journal.entries())
    assert [entry.payload["n"] for entry in entries] == list(range(6))
    assert [entry.payload["n"] for entry in journal.entries(after=entries[2].number)] == [3, 4, 5]
    assert [entry.payload["n"] for entry in journal.entries(kinds=("odd",), last=2)] == [3, 5]


def test_what_is_old_is_forgotten_kind_by_kind(journal, record):
    token = journal.acquire("one", 0.0, 10.0)
    other = record.journal("other")
    other.append(other.acquire("one", 0.0, 10.0), "look", {})
    for number in range(20):
        journal.append(token, "look", {"n": number})
    journal.append(token, "decision", {"n": 99})
    assert journal.forget(token, keep=5) == 15
    assert [entry.payload["n"] for entry in journal.entries(kinds=("look",))] == [15, 16, 17, 18, 19]
    assert len(list(journal.entries(kinds=("decision",)))) == 1
    assert len(list(other.entries())) == 1
    assert journal.forget(token, keep=5) == 0


def test_a_service_has_a_name_as_a_study_has(record):
    with pytest.raises(UsageError):
        record.journal("../etc")


def test_a_lease_from_a_clock_that_was_set_back_is_waited_for_once(journal):
    """An hour ahead it was granted, then the clock was mended: nobody must wait that hour."""
    assert journal.acquire("one", 3600.0, 10.0) == 1
    assert journal.acquire("other", 0.0, 10.0) is None
    assert journal.acquire("other", 9.9, 10.0) is None
    assert journal.acquire("other", 10.1, 10.0) == 2


def test_a_leader_whose_clock_was_set_back_stays_one(journal):
    assert journal.acquire("one", 3600.0, 10.0) == 1
    assert journal.acquire("other", 0.0, 10.0) is None
    assert journal.acquire("one", 5.0, 10.0) == 1
    assert journal.acquire("other", 14.0, 10.0) is None


def test_a_state_and_what_belongs_to_it_are_written_together(journal):
    token = journal.acquire("one", 0.0, 10.0)
    state = begin("b0", AT)
    journal.enter(token, state, {"event": "met"}, tuning={"reason": "p95"})
    assert [entry.kind for entry in journal.entries()] == ["tuning", "state"]
    with pytest.raises(ValueError, match="time zone"):
        journal.enter(token, state, {}, tuning={"at": datetime(2030, 1, 1)})
    assert len(list(journal.entries())) == 2


def test_entries_of_several_kinds(journal):
    for kind in ("freeze", "alert", "tune", "freeze"):
        journal.tell(kind, {"by": "me"})
    assert [entry.kind for entry in journal.entries(kinds=("freeze", "tune"))] == ["freeze", "tune", "freeze"]
