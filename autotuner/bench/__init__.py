"""`autotune bench`: measures what a file runs today, against another revision or against its own history."""

from autotuner.bench.run import Order, bench, history

__all__ = ["Order", "bench", "history"]
