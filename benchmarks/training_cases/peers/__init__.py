"""The other tuners, each in a process and an environment of its own; their documented way of use, nothing patched.

`python -m training_cases.peers.NAME CASE` prints one JSON line, `Answer`.
"""
