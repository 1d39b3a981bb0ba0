"""The simulated machine of `benchmarks/`: a worker pool with a known truth and chosen noise, nothing is measured."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "benchmarks"), str(Path(__file__).parent)]
