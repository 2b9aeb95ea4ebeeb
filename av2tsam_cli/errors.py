"""One error root; each child carries the exit code that the command line returns for it."""


class Av2tsamError(Exception):
    """Something failed, and the message says what, where and what to do (exit code 1)."""

    exit_code = 1


class UsageError(Av2tsamError):
    """The options or paths that were given cannot be worked with (exit code 2)."""

    exit_code = 2


class MediaError(Av2tsamError):
    """A media file or a data set cannot be read (exit code 3)."""

    exit_code = 3


class WeightsError(Av2tsamError):
    """Model weights are missing, damaged or of another architecture (exit code 4)."""

    exit_code = 4


class Interrupted(Av2tsamError):  # noqa: N818 - named like KeyboardInterrupt
    """The user interrupted the work; what was finished is kept (exit code 130)."""

    exit_code = 130
