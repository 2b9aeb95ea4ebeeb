"""The errors that this package raises, each class with its exit code."""

NOT_A_FILE = "pipes and devices are not supported; save the input to a file first"
"""Message for an input such as a FIFO or /dev/stdin, which cannot be read twice."""


class Av2tsamError(Exception):
    """Something failed; the message says what, where, and how to fix it (exit code 1)."""

    exit_code = 1


class UsageError(Av2tsamError):
    """The options or paths cannot be used, or an input is missing (exit code 2)."""

    exit_code = 2


class MediaError(Av2tsamError):
    """A media file or data set cannot be read (exit code 3)."""

    exit_code = 3


class WeightsError(Av2tsamError):
    """Model weights are missing, corrupted or of another architecture (exit code 4)."""

    exit_code = 4


class Interrupted(Av2tsamError):  # noqa: N818 - named like KeyboardInterrupt
    """The user interrupted the work; finished outputs are kept (exit code 130)."""

    exit_code = 130
