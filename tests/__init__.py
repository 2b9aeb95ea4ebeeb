"""The tests, in the layout of the package; `tests/fuzz/` and others also have commands."""

import os

# Several threads only slow down networks as tiny as those of the tests, above all when other
# programs use the cores. Libraries read this when they are imported, so it has to be set here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
