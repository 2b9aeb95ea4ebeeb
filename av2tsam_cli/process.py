"""Settings of the whole process. The command line applies them; the library never does."""

import ctypes
import sys
from contextlib import suppress

# From glibc's malloc.h, and the largest value that mallopt accepts.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _LARGEST = -1, -3, 2**31 - 1


def tune_process() -> None:
    """Make the C library reuse freed memory instead of returning it to the system.

    By default, glibc maps fresh zeroed pages for every large tensor. Reusing memory saved 20 % of
    the time of a full-size image encoder on one machine. The setting applies to the whole process
    and cannot be undone, so the library leaves it to the application: call this once at start-up,
    before loading a model. It has no effect on systems without glibc.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGEST)
            mallopt(_M_TRIM_THRESHOLD, _LARGEST)
