import pytest

from autotuner.store import open_record


@pytest.fixture
def journal(tmp_path):
    with open_record(str(tmp_path / "record.db"), create=True) as record:
        yield record.journal("chat")
