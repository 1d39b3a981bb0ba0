"""One OpenMP thread unless a test asks for more: two of them wait for each other where another process has a core."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish():
    """What is imported by now is never garbage; to look through it at each collection made the tests twice as long."""
    gc.collect()
    gc.freeze()
