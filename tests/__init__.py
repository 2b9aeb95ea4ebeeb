"""The tests, in the layout of the package; `tests/fuzz/` and others also have commands."""
