"""The original audio for an output video: its packets are copied if the container allows it."""

from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from av2tsam_cli.media.container import (
    MAX_CORRUPTED_PACKETS,
    frame_time_s,
    read_packets,
    seek,
    select_stream,
)
from av2tsam_cli.values import AudioStream

SEEK_MARGIN_S = 1.0
"""Seconds before the wanted time at which a seek aims."""
OPUS_RATE_HZ = 48_000
AAC_RATES_HZ = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000)
REENCODED_BITS_PER_S = 192_000

TimedPackets = Iterator[tuple[float, "Packet[AvAudioStream]"]]
"""Packets for the output with their times in seconds from its start."""


class SoundTrack:
    """One audio stream of a source, copied or re-encoded for an output.

    Times relative to the video are kept; `start_s` becomes time 0.
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
        self.source = source
        self.stream = cast("AvAudioStream", select_stream(source, audio.index))
        self.zero_s, self.start_s, self.stop_s = zero_s, start_s, stop_s
        self.copied = can_copy(output.format.name, self.stream)
        # Packets before the start only prepare the decoder. MP4 marks them as not to be played, and
        # Matroska does so for Opus; in other cases they would delay everything else.
        primed = output.format.name in {"mp4", "mov"} or audio.codec == "opus"
        self.earliest_s = float("-inf") if start_s <= 0 and primed else start_s
        if self.copied:
            self.track = output.add_stream_from_template(self.stream)
        else:
            self.track = _add_encoder(output, self.stream)
        if audio.language:
            self.track.metadata["language"] = audio.language
        self._packets = self._copied() if self.copied else self._encoded()
        self._held: tuple[float, Packet[AvAudioStream]] | None = None

    def packets_until(self, time_s: float) -> Iterator["Packet[AvAudioStream]"]:
        """Yield the packets up to a time in the output, in order, each packet once."""
        held, self._held = self._held, None
        for packet_s, packet in chain([] if held is None else [held], self._packets):
            if packet_s > time_s:
                self._held = packet_s, packet
                return
            yield packet

    def _copied(self) -> TimedPackets:
        """Yield the packets of the source, shifted to the output's clock."""
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
            # Muxers reject times that do not increase, which corrupted files can have.
            dts = packet.dts - shift
            dts = dts if last_dts is None else max(dts, last_dts + 1)
            packet.pts, packet.dts, last_dts = max(packet.pts - shift, dts), dts, dts
            packet.stream = self.track
            yield time_s - self.start_s, packet

    def _encoded(self) -> TimedPackets:
        """Decode the audio of the source and encode it on the output's clock."""
        for frame in self._decoded():
            file_s = frame_time_s(frame)
            if file_s is None or frame.pts is None or frame.time_base is None:
                continue
            time_s = file_s - self.zero_s
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
                continue  # a corrupted packet leaves a silent gap
            yield from frames

    def _demuxed(self) -> Iterator["Packet[AvAudioStream]"]:
        """Yield the packets of the source from just before the start; skip unreadable ones."""
        if self.start_s > SEEK_MARGIN_S:
            seek(self.source, self.stream, self.zero_s + self.start_s - SEEK_MARGIN_S)
        unreadable = 0
        for packet in read_packets(self.source, self.stream):
            unreadable = unreadable + 1 if packet is None else 0
            if unreadable == MAX_CORRUPTED_PACKETS:
                return  # the video is written without the rest of its audio
            if packet is not None:
                yield cast("Packet[AvAudioStream]", packet)


def can_copy(container_format: str, stream: AvAudioStream) -> bool:
    """Return whether a container can store the packets of a stream; this tries it in memory."""
    try:
        with av.open(BytesIO(), mode="w", format=container_format) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _add_encoder(output: OutputContainer, stream: AvAudioStream) -> AvAudioStream:
    """Add an Opus track to WebM, else an AAC track; more than two channels become stereo."""
    if output.format.name == "webm":
        track = output.add_stream("libopus", rate=OPUS_RATE_HZ)
    else:
        rate_hz = stream.codec_context.sample_rate
        track = output.add_stream("aac", rate=rate_hz if rate_hz in AAC_RATES_HZ else 48_000)
    track.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    track.codec_context.bit_rate = REENCODED_BITS_PER_S
    return track
