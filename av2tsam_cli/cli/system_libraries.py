"""Shared libraries of the operating system that slim containers lack, and who provides them."""

import ctypes
import re

PACKAGE_OF = {
    "libGL.so.1": "libgl1",
    "libxcb.so.1": "libxcb1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
}
"""Libraries that opencv-python needs, with the package of Debian and Ubuntu for each."""

_CANNOT_OPEN = re.compile(r"(\S+\.so[\d.]*): cannot open shared object file")


def explain_missing_library(error: ImportError) -> str | None:
    """Return which libraries are missing and how to install them; None for any other error.

    The dynamic linker names only the first library that it misses, so the others of opencv-python
    are looked for here.
    """
    match = _CANNOT_OPEN.search(str(error))
    if match is None:
        return None
    missing = [name for name in PACKAGE_OF if not _can_load(name)]
    if match[1] not in missing:
        return f"{match[1]} is missing; install the system package that provides it"
    packages = " ".join(dict.fromkeys(PACKAGE_OF[name] for name in missing))
    return (
        f"opencv-python needs system libraries that are missing: {', '.join(missing)}; install "
        f"them (Debian, Ubuntu: apt-get install {packages}), or replace opencv-python with "
        "opencv-python-headless"
    )


def _can_load(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
