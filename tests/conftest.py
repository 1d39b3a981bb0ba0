"""One OpenMP thread unless a test asks for more: two of them wait for each other where another process has a core."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
