"""Workloads whose bottleneck is known by construction: what a diagnosis is judged by.

`workload` is the plugin that is measured; it runs parts one after the other. The parts live in `operations` (arithmetic
and memory), `host` (many small operations), `inputs` (loaders), `links` (other processes), `idle` (what is none of
these) and `holding` (memory). `cases` says which parts make which truth; only the harness reads it.
"""
