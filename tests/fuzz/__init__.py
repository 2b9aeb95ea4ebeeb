"""Fuzzers: damaged and hostile files, which must end in a result or in a documented error.

Each has a command of its own, such as `python -m tests.fuzz.media --seed 1 --count 2000`, and a
sample in the test suite. A seed always makes the same files.
"""
