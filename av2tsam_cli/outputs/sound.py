"""Add the original audio to an output video; packets are copied if the container allows it."""

import logging
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from io import BytesIO
from itertools import chain, groupby
from math import ceil
from typing import cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from av2tsam_cli.media.audio import contiguous, with_end
from av2tsam_cli.media.container import (
    MAX_CORRUPTED_PACKETS,
    decode_packet,
    read_packets,
    seek,
    select_stream,
)
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.outputs.adts import AdtsHeader
from av2tsam_cli.values import AudioStream

SEEK_MARGIN_S = 1.0
"""Seconds before the wanted time at which a seek aims."""
OPUS_RATE_HZ = 48_000
AAC_RATES_HZ = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000)
REENCODED_BITS_PER_S = 192_000
NO_CLIPPING = {"rematrix_maxval": "1"}
"""Option of FFmpeg's resampler that keeps a mix of several channels from clipping."""
UNNAMED = " channels"
"""End of a layout's name if only the number of channels is known."""
PCM = "pcm_"
"""Prefix of the names of all PCM codecs."""
PCM_IN_MP4 = frozenset({"pcm_s16le"})
"""PCM that players of MP4 support; FFmpeg before 6.0 plays other kinds as noise or not at all."""

IN_MOV = {
    "bod": "tib", "cym": "wel", "cze": "ces", "deu": "ger", "ell": "gre", "eus": "baq",
    "fas": "per", "fre": "fra", "hye": "arm", "isl": "ice", "kat": "geo", "mkd": "mac",
    "nld": "dut", "rum": "ron", "slo": "slk", "sqi": "alb", "swe": "sve", "zho": "chi",
}  # fmt: skip
"""Language codes that FFmpeg does not support in MOV, with equivalent codes that it supports."""

log = logging.getLogger(__name__)

TimedPackets = Iterator[tuple[float, "Packet[AvAudioStream]"]]
"""Packets for the output with their times in seconds from its start."""


class SoundTrack:
    """One audio stream of a source, copied or re-encoded for an output.

    Times relative to the video are kept; `start_s` becomes time 0. PCM is decoded and encoded
    again, because containers store it without the times of its packets; no sample changes.
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
        damage: DamageLog,
        check_end: Callable[[float], None],
    ) -> None:
        self.source, self.damage, self.check_end = source, damage, check_end
        self.stream = cast("AvAudioStream", select_stream(source, audio.index))
        self.zero_s, self.start_s, self.stop_s = zero_s, start_s, stop_s
        # Packets before the start only prepare the decoder. MP4 marks them as not to be played, as
        # does Matroska for Opus; in other cases they would delay everything else.
        primed = output.format.name in {"mp4", "mov"} or audio.codec == "opus"
        self.earliest_s = float("-inf") if start_s <= 0 and primed else start_s
        self.keeps_codec = can_store(output.format.name, self.stream)
        if self.keeps_codec and not audio.codec.startswith(PCM):
            self.track = output.add_stream_from_template(self.stream)
            self._packets = self._copied()
        else:
            self.track = _add_encoder(output, self.stream, keep=self.keeps_codec)
            self._packets = self._encoded()
        if audio.language:
            in_mov = IN_MOV.get(audio.language, audio.language)
            mov = output.format.name == "mov"
            self.track.metadata["language"] = in_mov if mov else audio.language
        self._next: tuple[float, Packet[AvAudioStream]] | None = None

    def packets_until(self, time_s: float) -> Iterator["Packet[AvAudioStream]"]:
        """Yield the next packets up to a time in the output, in order."""
        first, self._next = self._next, None
        for packet_s, packet in chain([] if first is None else [first], self._packets):
            if packet_s > time_s:
                self._next = packet_s, packet
                return
            yield packet

    def _copied(self) -> TimedPackets:
        """Yield the packets of the source, shifted to the output's clock."""
        overlap = _Overlap()
        first = last_dts = None
        end_s = 0.0
        packets = self._demuxed()
        for packet in packets:
            if packet.pts is None or packet.dts is None:
                continue
            time_s = float(packet.pts * packet.time_base) - self.zero_s
            end_s = time_s + float((packet.duration or 0) * packet.time_base)
            if self.stop_s is not None and time_s >= self.stop_s:
                return
            if time_s < self.earliest_s or overlap.covers(packet):
                continue
            first = first or AdtsHeader.of(packet)
            if first is not None and not first.fits(packet):
                yield from self._continued(chain([packet], packets), first, time_s)
                return
            shift = round((self.zero_s + self.start_s) / packet.time_base)
            # Muxers reject times that do not increase, as in corrupted files.
            tick = ceil((self.track.time_base or 0) / packet.time_base)
            dts = packet.dts - shift
            dts = dts if last_dts is None else max(dts, last_dts + max(1, tick))
            packet.pts, packet.dts, last_dts = max(packet.pts - shift, dts), dts, dts
            packet.stream = self.track
            yield time_s - self.start_s, packet
        self.check_end(end_s)

    def _continued(
        self, packets: Iterator["Packet[AvAudioStream]"], like: AdtsHeader, begin_s: float
    ) -> TimedPackets:
        """Yield the rest of a track whose rate or channels change, encoded like its beginning.

        Containers store rate and channels once per track.
        """
        log.warning(
            "%s: the rate or channels of the audio change at %.2f s; re-encoded from there on",
            self.source.name, begin_s,
        )  # fmt: skip
        encoder = AudioCodecContext.create("aac", "w")
        encoder.sample_rate, encoder.layout = like.rate_hz, like.layout
        encoder.format, encoder.time_base = "fltp", Fraction(1, like.rate_hz)
        encoder.bit_rate = REENCODED_BITS_PER_S
        begin = round((begin_s - self.start_s) * like.rate_hz)
        for frame in chain(self._encodable(self._decoded(packets), encoder, begin_s), [None]):
            for packet in encoder.encode(frame):
                if packet.pts is None or packet.pts < begin:  # the encoder's delay
                    continue
                adts = cast("Packet[AvAudioStream]", Packet(like.before(packet)))
                adts.pts = adts.dts = packet.pts
                adts.duration, adts.time_base = packet.duration, Fraction(1, like.rate_hz)
                adts.stream = self.track
                yield float(packet.pts * adts.time_base), adts

    def _encoded(self) -> TimedPackets:
        """Decode the audio of the source and encode it on the output's clock."""
        frames = self._encodable(
            self._decoded(self._demuxed()), self.track.codec_context, max(0.0, self.start_s)
        )
        for frame in chain(frames, [None]):
            for packet in self.track.encode(frame):
                yield float((packet.pts or 0) * packet.time_base), packet

    def _encodable(
        self, decoded: Iterator[AudioFrame], context: AudioCodecContext, begin_s: float
    ) -> Iterator[AudioFrame]:
        """Yield continuous frames in an encoder's format, with their times in the output."""
        rate_hz = context.sample_rate
        position = round((begin_s - self.start_s) * rate_hz)
        stop = None if self.stop_s is None else round((self.stop_s - self.start_s) * rate_hz)
        for frame in _convert(contiguous(decoded, self.zero_s + begin_s), context):
            if stop is not None and position >= stop:
                return
            frame.pts, frame.time_base = position, Fraction(1, rate_hz)
            position += frame.samples
            yield frame

    def _decoded(self, packets: Iterable["Packet[AvAudioStream]"]) -> Iterator[AudioFrame]:
        """Decode packets; corrupted packets leave gaps."""
        frames = (frame for packet in packets for frame in decode_packet(packet, self.damage) or ())
        yield from with_end(cast("Iterator[AudioFrame]", frames), self.zero_s, self.check_end)

    def _demuxed(self) -> Iterator["Packet[AvAudioStream]"]:
        """Yield the packets of the source from just before the start; skip unreadable ones."""
        if self.start_s > SEEK_MARGIN_S:
            seek(self.source, self.stream, self.zero_s + self.start_s - SEEK_MARGIN_S)
        unreadable = 0
        for packet in read_packets(self.source, self.stream, self.damage):
            unreadable = unreadable + 1 if packet is None else 0
            if unreadable == MAX_CORRUPTED_PACKETS:
                log.warning(
                    "%s: the rest of the audio is unreadable, and is left out", self.source.name
                )
                return
            if packet is not None:
                yield cast("Packet[AvAudioStream]", packet)


class _Overlap:
    """Finds packets of which more than half overlaps the previous one, as in joined recordings.

    Players would play these packets, and everything after them, late.
    """

    def __init__(self) -> None:
        self._last_s: Fraction | None = None
        self._regular = False
        """Whether the last two packets are as far apart as they are long."""

    def covers(self, packet: "Packet[AvAudioStream]") -> bool:
        """Return whether the previous packet covers more than half of this one."""
        time_s = cast("int", packet.dts) * packet.time_base
        half_s = (packet.duration or 0) * packet.time_base / 2
        step_s = half_s * 2 if self._last_s is None else time_s - self._last_s
        if self._regular and step_s < half_s:  # otherwise, times or durations may be wrong
            return True
        self._last_s, self._regular = time_s, half_s < step_s < 3 * half_s
        return False


def can_store(container_format: str, stream: AvAudioStream) -> bool:
    """Return whether a container can store the codec of a stream, by trying it in memory.

    PCM in MP4 is a late addition to the standard; players often only support 16 bits.
    """
    codec = stream.codec_context.name
    if container_format == "mp4" and codec.startswith(PCM):
        return codec in PCM_IN_MP4 and not _layout(stream).endswith(UNNAMED)
    try:
        with av.open(BytesIO(), mode="w", format=container_format) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _layout(stream: AvAudioStream) -> str:
    """Return FFmpeg's name of a stream's channel layout; PCM files often do not specify it."""
    name = stream.codec_context.layout.name
    return {f"1{UNNAMED}": "mono", f"2{UNNAMED}": "stereo"}.get(name, name)


def _convert(frames: Iterable[AudioFrame], context: AudioCodecContext) -> Iterator[AudioFrame]:
    """Yield audio in an encoder's format, rate and layout, even if the input changes."""

    def kind(frame: AudioFrame) -> tuple[str, str, int]:
        return frame.format.name, frame.layout.name, frame.sample_rate

    for _, alike in groupby(frames, kind):
        resampler = AudioResampler(
            context.format, context.layout, context.sample_rate, options=NO_CLIPPING
        )
        for frame in chain(alike, [None]):
            yield from filter(None, resampler.resample(frame))


def _add_encoder(output: OutputContainer, stream: AvAudioStream, *, keep: bool) -> AvAudioStream:
    """Add a track with the same codec if `keep` is set, else Opus in WebM, or AAC.

    Opus and AAC tracks have at most two channels.
    """
    source = stream.codec_context
    if keep:
        track = cast("AvAudioStream", output.add_stream(source.name, rate=source.sample_rate))
        track.codec_context.layout = _layout(stream)
        return track
    if output.format.name == "webm":
        track = output.add_stream("libopus", rate=OPUS_RATE_HZ)
    else:
        rate_hz = source.sample_rate
        track = output.add_stream("aac", rate=rate_hz if rate_hz in AAC_RATES_HZ else 48_000)
    track.codec_context.layout = "mono" if source.channels == 1 else "stereo"
    track.codec_context.bit_rate = REENCODED_BITS_PER_S
    return track
