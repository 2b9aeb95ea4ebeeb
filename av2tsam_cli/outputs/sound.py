"""The original sound for an output video: its packets as they are where that is possible."""

from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard

from av2tsam_cli.errors import MediaError
from av2tsam_cli.values import AudioStream

MAX_UNREADABLE = 250
"""Failed reads in a row after which the rest of a sound track is given up."""
SEEK_MARGIN_S = 1.0
"""How far ahead of the wanted time a seek aims."""
OPUS_RATE_HZ = 48_000
AAC_RATES_HZ = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000)
REENCODED_BITS_PER_S = 192_000

TimedPackets = Iterator[tuple[float, "Packet[AvAudioStream]"]]
"""Packets for the output with their times in seconds from its start."""


class SoundTrack:
    """One sound track of a source, ready to be muxed into an output.

    Presentation times stay what they are relative to the video; start_s becomes time 0.
    """

    def __init__(
        self,
        source: InputContainer,
        output: OutputContainer,
        audio: AudioStream,
        *,
        zero_s: float,
        start_s: float,
        stop_s: float | None,
    ) -> None:
        self.source, self.stream = source, source.streams[audio.index]
        if not isinstance(self.stream, AvAudioStream):
            raise TypeError(f"stream {audio.index} holds no sound")
        for other in source.streams:
            if other is not self.stream:
                other.discard = Discard.all  # not even read from the disk, where that is possible
        self.zero_s, self.start_s, self.stop_s = zero_s, start_s, stop_s
        self.copied = can_hold(output.format.name, self.stream)
        # What lies before the start only prepares the decoder. MP4 marks it as not to be played
        # and Matroska does so for Opus; elsewhere it would push everything else back.
        primed = output.format.name in {"mp4", "mov"} or audio.codec == "opus"
        self.earliest_s = float("-inf") if start_s <= 0 and primed else start_s
        if self.copied:
            self.track = output.add_stream_from_template(self.stream)
        else:
            self.track = _add_encoder(output, self.stream)
        if audio.language:
            self.track.metadata["language"] = audio.language
        self._packets = self._copied() if self.copied else self._encoded()
        self._next: tuple[float, Packet[AvAudioStream]] | None = None

    def packets_until(self, time_s: float) -> Iterator["Packet[AvAudioStream]"]:
        """What is due up to a time in the output, in order, each packet once."""
        for packet_s, packet in self._pending():
            if packet_s > time_s:
                self._next = packet_s, packet
                return
            yield packet

    def _pending(self) -> TimedPackets:
        held = self._next
        self._next = None
        return self._packets if held is None else chain((held,), self._packets)

    def _copied(self) -> TimedPackets:
        """The source's packets, shifted to the output's clock."""
        last_dts = None
        for packet in self._demuxed():
            if packet.pts is None or packet.dts is None:
                continue
            time_s = float(packet.pts * packet.time_base) - self.zero_s
            if self.stop_s is not None and time_s >= self.stop_s:
                return
            if time_s < self.earliest_s:
                continue
            shift = round((self.zero_s + self.start_s) / packet.time_base)
            # Muxers refuse a time that does not grow; a damaged file may hold one.
            dts = packet.dts - shift
            dts = dts if last_dts is None else max(dts, last_dts + 1)
            packet.pts, packet.dts, last_dts = max(packet.pts - shift, dts), dts, dts
            packet.stream = self.track
            yield time_s - self.start_s, packet

    def _encoded(self) -> TimedPackets:
        """The source's sound, decoded and encoded again at the output's clock."""
        for frame in self._decoded():
            if frame.pts is None or frame.time_base is None:
                continue
            time_s = float(frame.pts * frame.time_base) - self.zero_s
            if self.stop_s is not None and time_s >= self.stop_s:
                break
            if time_s < max(0.0, self.start_s):
                continue
            frame.pts -= round((self.zero_s + self.start_s) / frame.time_base)
            for packet in self.track.encode(frame):
                yield time_s - self.start_s, packet
        for packet in self.track.encode(None):
            yield float((packet.pts or 0) * packet.time_base), packet

    def _decoded(self) -> Iterator[AudioFrame]:
        for packet in self._demuxed():
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # a damaged packet: its moment stays silent
            yield from frames

    def _demuxed(self) -> Iterator["Packet[AvAudioStream]"]:
        """The source's packets from somewhat ahead of the start, past unreadable spots."""
        self._seek()
        unreadable = 0
        while unreadable < MAX_UNREADABLE:
            try:
                for packet in self.source.demux(self.stream):
                    unreadable = 0
                    yield cast("Packet[AvAudioStream]", packet)
            except (av.FFmpegError, OSError):
                unreadable += 1
            else:
                return

    def _seek(self) -> None:
        if self.start_s <= SEEK_MARGIN_S or self.stream.time_base is None:
            return
        target = int((self.zero_s + self.start_s - SEEK_MARGIN_S) / self.stream.time_base)
        try:
            self.source.seek(target, stream=self.stream)
        except (av.FFmpegError, OSError):
            return  # not seekable: it is read from the beginning


def open_source(path: Path) -> InputContainer:
    """Open the file whose sound goes into the output.

    Raises:
        MediaError: It can no longer be read.
    """
    try:
        return av.open(str(path.absolute()), mode="r", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: can no longer be read ({error.strerror})") from error


def can_hold(container_format: str, stream: AvAudioStream) -> bool:
    """Whether a container takes a stream's packets as they are; found out by trying."""
    try:
        with av.open(BytesIO(), mode="w", format=container_format) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _add_encoder(output: OutputContainer, stream: AvAudioStream) -> AvAudioStream:
    """An Opus track for WebM, an AAC track elsewhere; more than two channels become stereo."""
    if output.format.name == "webm":
        track = output.add_stream("libopus", rate=OPUS_RATE_HZ)
    else:
        rate_hz = stream.codec_context.sample_rate
        track = output.add_stream("aac", rate=rate_hz if rate_hz in AAC_RATES_HZ else 48_000)
    track.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    track.codec_context.bit_rate = REENCODED_BITS_PER_S
    return track
