"""Correct the times of packets in files whose clock jumps."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.video.frame import VideoFrame

JUMP_S = Fraction(10)
"""Longest gap, in seconds, in formats whose clock may jump (FFmpeg's `dts_delta_threshold`)."""
LONGEST_GAP_S = Fraction(30 * 3600)
"""Longest gap, in seconds, in other formats (FFmpeg's `dts_error_threshold`)."""
BACKWARD_S = Fraction(1, 10)
"""Seconds by which a packet may precede the previous one of its stream, as an overlap."""
COUNTER = 1 << 33
"""Ticks after which the 33-bit counter of MPEG-TS and MPEG-PS wraps around."""


def may_jump(container: InputContainer) -> bool:
    """Return whether the clock of a format may jump, as in MPEG-TS, MPEG-PS and Ogg."""
    return Flags.ts_discont in Flags(container.format.flags)


@dataclass
class _Position:
    """The position of a stream on the continuous clock, in seconds."""

    section: int = 0
    """The section of its last packet."""
    decoded_s: Fraction | None = None
    """Decoding time of its last packet; None before the first."""
    step_s: Fraction = Fraction(0)
    """Duration of its last packet."""
    end_s: Fraction = Fraction(0)
    """End of the presentation of its packets so far."""


class Clock:
    """Gives the packets of a file times on one continuous clock.

    The times of a file jump where recordings were joined, where a broadcast was interrupted, and
    where a counter wraps around. A jump is a gap of more than 10 s (30 h in formats whose clock is
    not expected to jump) or a step back by more than 0.1 s within a stream; these are FFmpeg's
    limits. A jump begins a section: the times after it are shifted so that the stream continues
    where it ended. The other streams join the section when they jump, with the same shift, so that
    pictures and sound stay in sync. If one of them would overlap its earlier packets by more than
    0.1 s, the section is delayed by the overlap. Smaller overlaps and gaps remain: readers cut
    overlapping sound and fill gaps with silence.

    Each reader of a file, whether of pictures, analysed sound or copied sound, has its own clock.
    They agree, because all clocks see the same packets in the same order.
    """

    def __init__(self, *, jumps: bool) -> None:
        self._jumps = jumps
        self._longest_gap_s = JUMP_S if jumps else LONGEST_GAP_S
        self._shifts_s = [Fraction(0)]  # of each section
        self._positions: dict[int, _Position] = {}

    def correct(self, packet: "Packet[Any]") -> None:
        """Move the times of the next packet of a file to the continuous clock."""
        at = self._positions.setdefault(packet.stream_index, _Position())
        tick_s = packet.time_base
        if packet.dts is not None:
            presented = packet.pts = self._presented(at, packet, packet.dts)
            duration = packet.duration or 0
            self._advance(at, packet.dts * tick_s, presented * tick_s, duration * tick_s)
        shift = round(self._shifts_s[at.section] / tick_s)
        packet.pts = None if packet.pts is None else packet.pts + shift
        packet.dts = None if packet.dts is None else packet.dts + shift

    def _presented(self, at: _Position, packet: "Packet[Any]", dts: int) -> int:
        """Return the presentation time of a packet in ticks; near jumps, FFmpeg guesses some."""
        if packet.pts is None:
            return dts
        pts = packet.pts + round((dts - packet.pts) / COUNTER) * COUNTER
        if not self._jumps or 0 <= (pts - dts) * packet.time_base <= JUMP_S:
            return pts
        if at.decoded_s is None:
            return dts
        return round((at.end_s - self._shifts_s[at.section]) / packet.time_base)

    def _advance(
        self, at: _Position, decoded_s: Fraction, presented_s: Fraction, duration_s: Fraction
    ) -> None:
        """Advance a stream to a packet, in the section of this packet."""
        before_s = at.decoded_s
        if before_s is not None and self._is_jump(at, decoded_s - before_s, presented_s):
            at.section = self._section_after(at, presented_s)
        shift_s = self._shifts_s[at.section]
        at.decoded_s = decoded_s + shift_s
        if duration_s:
            at.step_s = duration_s
        elif before_s is not None and at.decoded_s > before_s:  # the file has no durations
            at.step_s = min(at.step_s or LONGEST_GAP_S, at.decoded_s - before_s)
        at.end_s = max(at.end_s, presented_s + shift_s + at.step_s)

    def _is_jump(self, at: _Position, step_s: Fraction, presented_s: Fraction) -> bool:
        """Return whether a step between decoding times, before any shift, is a jump."""
        shift_s = self._shifts_s[at.section]
        step_s += shift_s
        if step_s < -BACKWARD_S:  # may also be a change in the delay of B-frames, not a jump
            return at.end_s - (presented_s + shift_s) > BACKWARD_S
        return step_s - at.step_s > self._longest_gap_s

    def _section_after(self, at: _Position, presented_s: Fraction) -> int:
        """Return the section that a stream joins or begins when it jumps to a time."""
        for section in range(len(self._shifts_s) - 1, at.section, -1):
            overlap_s = at.end_s - (presented_s + self._shifts_s[section])
            if abs(overlap_s) <= self._longest_gap_s:
                if overlap_s > BACKWARD_S:
                    self._shifts_s[section] += overlap_s
                return section
        self._shifts_s.append(at.end_s - presented_s)
        return len(self._shifts_s) - 1


class DisplayClock:
    """Gives frames times in formats that only store decoding times, such as AVI.

    The decoder returns frames in display order, a constant number of packets late, and `frame.dts`
    is the time of the packet that was read last.
    """

    def __init__(self, first: "Packet[Any]", delay: int | None = None) -> None:
        """Begin with a packet.

        Args:
            first: The first packet that is decoded.
            delay: Delay of the frames, in ticks; None to measure it, which is only correct at the
                beginning of a file: elsewhere, the decoder drops first pictures that depend on
                earlier ones.
        """
        self._first = first.dts
        self._delay = delay

    def correct(self, frame: VideoFrame) -> None:
        """Set the time of the next frame; for the last frames, no packets are left to set it."""
        if frame.dts is None or self._first is None:
            frame.pts = None
            return
        if self._delay is None:
            self._delay = frame.dts - self._first
        frame.pts = frame.dts - self._delay
