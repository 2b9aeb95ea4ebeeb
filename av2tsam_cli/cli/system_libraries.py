"""Shared system libraries that slim containers lack, and the packages that provide them."""

import ctypes
import re

PACKAGE_OF = {
    "libGL.so.1": "libgl1",
    "libxcb.so.1": "libxcb1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
}
"""Libraries that opencv-python needs, with their packages on Debian and Ubuntu."""

_CANNOT_OPEN = re.compile(r"(\S+\.so[\d.]*): cannot open shared object file")


def explain_missing_library(error: ImportError) -> str | None:
    """Return a message about missing libraries and how to install them; None for other errors.

    The dynamic linker only names the first missing library, so this looks for the others that
    opencv-python needs.
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
