"""Count the damage in a file while it is read, and decide what is an error."""

import logging
from pathlib import Path
from threading import Lock
from typing import Literal

from av2tsam_cli.errors import MediaError
from av2tsam_cli.media.structure import Structure, read_structure
from av2tsam_cli.values import AudioStream, Damage, MediaInfo, VideoStream

EARLY_S = 0.5
"""Seconds that may be missing at the end of a truncated file."""
PARTLY = "`allow_partial` to use the readable part"
"""Advice if only a part of a file can be read."""

Kind = Literal["video", "audio"]

log = logging.getLogger(__name__)


class DamageLog:
    """Collects the damage that the readers of one file find, each on its own thread.

    It can be pickled, and merged with the logs of other processes.

    Readers skip corrupted packets, whose pictures and sound are then missing or incomplete. A
    truncated file is an error, unless the user allows it.
    """

    def __init__(self, path: Path, *, allow_partial: bool | None = None) -> None:
        """Begin to read a file.

        Args:
            path: The file.
            allow_partial: Whether to accept a file of which only a part can be read; None if not,
                and the user has no option to change that.
        """
        self.path = path
        self.allow_partial = bool(allow_partial)
        self._hint = "" if allow_partial is None else f", or set {PARTLY}"
        self._lock = Lock()
        self._unreadable: dict[Kind, int] = {"video": 0, "audio": 0}
        self._times_s: dict[Kind, set[float]] = {"video": set(), "audio": set()}
        self._incomplete_s: set[float] = set()
        self._structure: Structure | None = None
        self._missing_s: dict[Kind, float | None] = {}

    def count_packet(self, kind: Kind, time_s: float | None) -> None:
        """Count a corrupted packet, only once even if several readers report it.

        Args:
            kind: The kind of its stream.
            time_s: Its time; None if it cannot be read.
        """
        with self._lock:
            if time_s is None:
                self._unreadable[kind] += 1
            else:
                self._times_s[kind].add(time_s)

    def count_incomplete_frame(self, time_s: float) -> None:
        """Count a frame that the decoder completed with parts of other frames, by its time."""
        self._incomplete_s.add(time_s)

    def merge(self, other: "DamageLog") -> None:
        """Add the damage that the readers of a part of the file found, without duplicates."""
        for kind, times_s in other._times_s.items():
            self._times_s[kind] |= times_s
            self._unreadable[kind] += other._unreadable[kind]
        self._incomplete_s |= other._incomplete_s
        self._structure = self._structure or other._structure
        self._missing_s |= other._missing_s

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def _count(self, kind: Kind) -> int:
        return self._unreadable[kind] + len(self._times_s[kind])

    def give_up(self, message: str) -> None:
        """Raise an error about a stream that is unreadable from here on, unless that is allowed."""
        if not self.allow_partial:
            raise MediaError(message + self._hint)

    def end(
        self, info: MediaInfo, stream: VideoStream | AudioStream, zero_s: float, end_s: float
    ) -> None:
        """Check whether something is missing at the end of a stream.

        Only the structure of the file counts. The declared number of frames does not, because it
        can include empty chunks and frames that an edit list discards; nor does the declared end,
        because the last picture can be displayed for a long time.

        Args:
            info: The file, as probed.
            stream: The stream.
            zero_s: Start of the presentation on the file's own clock, in seconds.
            end_s: End of its last frame, in seconds of the presentation.

        Raises:
            MediaError: More than `EARLY_S` is missing, or an unknown duration, and the user did
                not allow that.
        """
        structure = self._structure = self._structure or read_structure(self.path)
        if structure.is_whole:
            return
        declared_s = None
        if structure.declares_duration:
            declared_s = _declared_end_s(info, stream, zero_s)
            if declared_s is None and isinstance(stream, AudioStream) and info.video:
                return  # the end of the video decides
        if declared_s is None and not structure.cut_short:
            return
        kind: Kind = "video" if isinstance(stream, VideoStream) else "audio"
        self._missing_s[kind] = None if declared_s is None else max(0.0, declared_s - end_s)
        self._check_missing(kind, structure, end_s, declared_s)

    def _check_missing(
        self, kind: Kind, structure: Structure, end_s: float, declared_s: float | None
    ) -> None:
        what = "pictures end" if kind == "video" else "sound ends"
        lost = "pictures" if kind == "video" else "sound"
        state = "truncated" if structure.cut_short else "damaged"
        if declared_s is not None and end_s >= declared_s - EARLY_S:
            if structure.cut_short:
                log.warning("%s: %s; %s after %.2f s may be missing", self.path, state, lost, end_s)
            return
        of = "" if declared_s is None else f" of {declared_s:.2f}"
        message = f"{self.path}: {state}, its {what} after {end_s:.2f}{of} s"
        if not self.allow_partial:
            shorter = f", or set `end` to {end_s:.2f}" * (kind == "video")
            raise MediaError(f"{message}; copy it again{shorter}{self._hint}")
        log.warning("%s; the rest is missing", message)

    @property
    def is_short(self) -> bool:
        """Whether a stream was found to end too early."""
        return bool(self._missing_s)

    @property
    def found(self) -> Damage | None:
        """The damage so far; None if there is none."""
        structure = self._structure or Structure()
        missing = list(self._missing_s.values())
        damage = Damage(
            truncated=structure.cut_short,
            missing_s=None if None in missing else max((s for s in missing if s), default=0.0),
            unreadable_parts=structure.broken_parts,
            corrupted_video_packets=self._count("video"),
            corrupted_audio_packets=self._count("audio"),
            incomplete_frames=len(self._incomplete_s),
        )
        return None if damage == Damage() else damage

    def report(self) -> None:
        """Log what was skipped, in one line for each kind."""
        damage = self.found or Damage()
        for count, what in (
            (damage.unreadable_parts, "unreadable parts; what they contain is missing"),
            (damage.corrupted_video_packets, "corrupted video packets skipped"),
            (damage.corrupted_audio_packets, "corrupted audio packets skipped"),
            (damage.incomplete_frames, "frames are incomplete; the decoder filled in the rest"),
        ):
            if count:
                log.warning("%s: %d %s", self.path, count, what)


def _declared_end_s(
    info: MediaInfo, stream: VideoStream | AudioStream, zero_s: float
) -> float | None:
    """Return the declared end of a stream on the presentation clock; None if unknown."""
    if stream.duration_s is not None:
        return stream.start_s - zero_s + stream.duration_s
    # The duration of a file is the duration of its longest stream.
    return info.duration_s if isinstance(stream, VideoStream) or not info.video else None
