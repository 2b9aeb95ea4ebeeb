"""Write videos of drawings on the frames, with the original audio and the times of the frames."""

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import cv2
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer, OutputContainer
from av.error import ArgumentError, InvalidDataError, PatchWelcomeError
from av.filter import Graph
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
)
from av.video.stream import VideoStream as AvVideoStream

from av2tsam_cli.errors import Av2tsamError, MediaError, UsageError
from av2tsam_cli.files import atomic_file, write_errors
from av2tsam_cli.media.container import open_media
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.media.frames import ASSUMED_RATE
from av2tsam_cli.outputs.encoding import CONTAINERS, Encoding
from av2tsam_cli.outputs.metadata import copy_metadata
from av2tsam_cli.outputs.overlay import Draw
from av2tsam_cli.outputs.packets import (
    PacketFile,
    read_packets,
    read_start,
    with_decoding_times,
)
from av2tsam_cli.outputs.part import WrittenPart
from av2tsam_cli.outputs.record import ResultRecord, tag_name
from av2tsam_cli.outputs.sound import SoundTrack
from av2tsam_cli.values import (
    AudioStream,
    MaskedFrame,
    MediaInfo,
    Pixels,
    UInt8Array,
    VideoStream,
)

FINEST_TICK, COARSEST_TICK = Fraction(1, 1_000_000), Fraction(1, 10_000)
"""Bounds of an output's clock tick in seconds; coarser clocks of a source are subdivided."""

RGB = 0
"""The colour space of RGB (libavutil/pixfmt.h)."""
TO_YUV = (
    "flags=area+accurate_rnd+full_chroma_inp:"
    "out_color_matrix=bt709:out_range=tv:out_chroma_loc=left"
)
"""Options of FFmpeg's scaler for exact colours."""
HELD_PACKETS = 64
"""Packets to hold back in case they are the last ones; more than the delay of encoders."""
HEADER_BYTES = 4096
"""More than the header of any container."""
OF_SD = {ColorPrimaries.BT470BG, ColorPrimaries.SMPTE170M}
"""Primaries of SD video, which are kept; wider ones are converted to BT.709."""
CONVERTER_THREADS = max(1, (os.cpu_count() or 1) // 4)
"""Threads that convert colours; most cores are left to the encoder, which takes longer."""

IMAGE_FORMATS = {
    (1, 1): "gray",
    (3, 1): "rgb24",
    (3, 2): "rgb48le",
    (4, 1): "rgba",
    (4, 2): "rgba64le",
}
"""FFmpeg's name of the pixel format of an image, by its channels and bytes per channel."""

log = logging.getLogger(__name__)


class VideoWriter:
    """Draw and encode a video; the file gets its name when it is complete."""

    def __init__(
        self,
        target: Path,
        *,
        info: MediaInfo,
        video: VideoStream,
        audio: AudioStream | None,
        encoding: Encoding,
        zero_s: float,
        start_s: float = 0.0,
        stop_s: float | None = None,
        overwrite: bool = False,
        threads: int = 0,
        damage: DamageLog | None = None,
        draw: Draw,
        columns: int = 1,
        record: ResultRecord | None = None,
    ) -> None:
        self.encoding = encoding
        self.target, self.info, self.video, self.audio = target, info, video, audio
        self.zero_s, self.start_s, self.stop_s = zero_s, start_s, stop_s
        self.overwrite, self.threads = overwrite, threads
        self.outputs: tuple[Path, ...] = (target,)
        self._draw, self._columns, self._record = draw, columns, record
        self._sound: SoundTrack | None = None
        self._damage = damage or DamageLog(info.path)
        self._rejected = 0  # corrupted audio packets that the container rejected
        self._last_pts = -1
        self._durations: dict[int, int] = {}  # in ticks, of the frames that the encoder holds
        self._to_yuv: Graph | None = None

    def write(self, masked: MaskedFrame) -> None:
        """Draw and encode the next frame, and add the audio up to its time.

        Raises:
            Av2tsamError: The file cannot be written.
            MediaError: The format cannot store the content of the input, such as its times.
        """
        frame = masked.frame
        time_s = frame.time_s - self.start_s
        picture = self._encodable(self._draw(masked))
        with self._writing():
            self._last_pts = picture.pts = max(round(time_s / self._tick), self._last_pts + 1)
            picture.time_base = self._tick
            self._durations[self._last_pts] = round((frame.duration_s or 0.0) / self._tick)
            self._encode(picture)
            self._mux_sound(time_s)

    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Copy the pictures of parts that `VideoPartWriter` wrote, in order, with their audio.

        Raises:
            Av2tsamError: The file cannot be written, or the parts were not encoded in the same way.
            MediaError: See `write`.
        """
        paths = [part.packets for part in parts]
        starts = [read_start(path) for path in paths]
        for start in starts:
            if start.extradata != (self._encoder.codec_context.extradata or b""):
                raise Av2tsamError(
                    f"{self.target}: its parts were encoded differently; install the same version "
                    "of PyAV on all computers"
                )
        packets = chain.from_iterable(map(read_packets, paths))
        delay = max((start.delay for start in starts), default=0)
        last: deque[Packet[Any]] = deque()
        for packet in with_decoding_times(packets, delay):
            packet.time_base, packet.stream = self._tick, self._encoder
            self._last_pts = max(self._last_pts, packet.pts or 0)
            last.append(packet)
            if len(last) > HELD_PACKETS:
                self._append(last.popleft())
        self._keep_end(last)
        for packet in last:
            self._append(packet)

    def _append(self, packet: "Packet[Any]") -> None:
        with self._writing():
            time_s = float((packet.dts or 0) * self._tick)
            self._mux(packet)
            self._mux_sound(time_s)

    def __enter__(self) -> Self:
        with self._writing(), ExitStack() as opened:
            self._begin(opened)
            self._open = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._open.__exit__(kind, error, trace)
            return
        with self._writing(), self._open:
            self._check_any()
            self._encode(None)
            self._mux_sound(float("inf"))

    def _check_any(self) -> None:
        if self._last_pts < 0:
            raise UsageError(
                f"{self.target}: nothing to write, because {self.info.path} has no frame "
                "between `start` and `end`"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of the system, and errors that the input causes, into one line."""
        with write_errors(self.target, catch=(av.FFmpegError,)):
            try:
                yield
            except (av.FFmpegError, OverflowError) as error:
                if isinstance(error, OSError):
                    raise
                reason = getattr(error, "strerror", None) or str(error)
                raise MediaError(
                    f"{self.info.path}: its pictures, audio or times do not fit into "
                    f"{self.target.suffix} ({reason}); write .mkv, or re-encode it first"
                ) from error

    def _close(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the output; after an error, a second one is only logged."""
        del kind, trace
        try:
            self._container.close()
        except (OSError, av.FFmpegError):
            if error is None:
                raise
            log.debug("%s: cannot be closed", self.target, exc_info=True)

    def _begin(self, opened: ExitStack) -> None:
        part = opened.enter_context(atomic_file(self.target, overwrite=self.overwrite))
        source = opened.enter_context(open_media(self.info.path))
        # To detect a full disk: if PyAV cannot write a header, it leaves the file open.
        part.write_bytes(bytes(HEADER_BYTES))
        tick = _tick(source, self.video)
        options = {}
        if self.target.suffix.lower() in {".mp4", ".mov"}:
            # The index comes first, so that browsers can play the file while it loads. The
            # timescale is as fine as the times of frames, because a late start is stored in it.
            options = {"movflags": "+faststart", "movie_timescale": str(round(1 / tick))}
        self._open_container(str(part.absolute()), tick, options)
        opened.push(self._close)
        copy_metadata(
            source,
            self._container,
            self._encoder,
            video=self.video,
            zero_s=self.zero_s,
            start_s=self.start_s,
            stop_s=self.stop_s,
        )
        if self._record is not None:
            self._container.metadata[tag_name(self.target)] = self._record.fingerprint.tag
        if self.audio is not None:
            self._sound = self._add_sound(source, self.audio)
        self._container.start_encoding()

    def _open_container(self, path: str, tick: Fraction, options: dict[str, str]) -> None:
        """Open the output with its encoder."""
        self._tick = tick
        self._container: OutputContainer = av.open(
            path, mode="w", format=CONTAINERS[self.target.suffix.lower()], options=options
        )
        self._encoder = self._add_video()

    def _add_video(self) -> AvVideoStream:
        rate = self.video.rate if self.video.rate and self.video.rate < 1000 else ASSUMED_RATE
        encoding = self.encoding
        stream = cast(
            "AvVideoStream",
            self._container.add_stream(encoding.encoder, rate=rate, options=dict(encoding.options)),
        )
        context = stream.codec_context
        width, height = self._columns * self.video.width, self.video.height
        aspect = self.video.sample_aspect
        if encoding.square_pixels:
            width, aspect = round(width * aspect), Fraction(1)
        context.width, context.height = encoding.padded(width, height)
        context.sample_aspect_ratio = aspect
        context.pix_fmt = encoding.pixel_format
        if encoding.tag is not None:
            context.codec_tag = encoding.tag
        context.time_base = self._tick
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries = ColorPrimaries.BT709
        if self.video.primaries in OF_SD:
            context.color_primaries = self.video.primaries
        context.color_trc = ColorTrc.BT709
        context.thread_type, context.thread_count = ThreadType.AUTO, self.threads
        return stream

    def _add_sound(self, source: InputContainer, audio: AudioStream) -> SoundTrack:
        sound = SoundTrack(
            source,
            self._container,
            audio,
            zero_s=self.zero_s,
            start_s=self.start_s,
            stop_s=self.stop_s,
            damage=self._damage,
            check_end=partial(self._damage.end, self.info, audio, self.zero_s),
        )
        if not sound.keeps_codec:
            name, codec = self.target.suffix, sound.track.codec_context.name
            log.warning(
                "%s: audio re-encoded as %s, because %s does not support %s",
                self.target, codec, name, audio.codec,
            )  # fmt: skip
        return sound

    def _encodable(self, image: Pixels) -> VideoFrame:
        """Convert an image to the encoder's size, in BT.709 with limited range.

        Args:
            image: Grey levels, (H, W), RGB, (H, W, 3), or RGBA, (H, W, 4).
        """
        context = self._encoder.codec_context
        bottom, right = context.height - image.shape[0], context.width - image.shape[1]
        if 1 in {bottom, right}:  # an odd size: repeat the last row or column
            padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            image = cast("Pixels", padded)
        channels = 1 if image.ndim == 2 else image.shape[2]
        pixels = VideoFrame.from_numpy_buffer(
            cast("UInt8Array", np.ascontiguousarray(image)),
            IMAGE_FORMATS[channels, image.itemsize],
        )
        pixels.colorspace, pixels.color_range = RGB, ColorRange.JPEG
        if self._to_yuv is None:
            self._to_yuv = _to_yuv(pixels, (context.width, context.height), context.pix_fmt)
        self._to_yuv.vpush(pixels)
        return self._to_yuv.vpull()

    def _encode(self, picture: VideoFrame | None) -> None:
        """Encode a picture, or finish encoding with None, and write the available packets."""
        packets = self._encoder.encode(picture)
        for packet in packets:
            # Encoders drop durations. Only the last one matters: other frames end with the next.
            packet.duration = self._durations.pop(packet.pts or 0, 0)
        if picture is None:
            self._keep_end(packets)
        for packet in packets:
            self._mux(packet)

    def _keep_end(self, packets: "Sequence[Packet[AvVideoStream]]") -> None:
        """Let an MP4 end with its last picture, even if that is not in its last packet.

        In MP4, the duration of a packet is the time to the next one. With B-frames, the duration of
        the last picture would be lost, so it is added to the last packet.
        """
        if not packets or self._container.format.name not in {"mp4", "mov"}:
            return
        times = [(packet.pts or 0, packet.dts or 0, packet.duration or 0) for packet in packets]
        end = max(pts + duration for pts, _, duration in times)
        stored = [pts + later - dts for (pts, dts, _), (_, later, _) in pairwise(times)]
        if max(stored, default=0) < end:
            packets[-1].duration = end - times[-1][0]

    def _mux(self, packet: "Packet[Any]") -> None:
        try:
            self._container.mux_one(packet)
        except (ArgumentError, PatchWelcomeError) as error:  # a muxer rejected the times
            if isinstance(error, PatchWelcomeError) and packet.stream is not self._encoder:
                raise  # a corrupted audio packet
            raise MediaError(
                f"{self.info.path}: its clock has a gap that is too long for {self.target.suffix}; "
                "choose a part with `start` and `end`, or write .mkv"
            ) from error

    def _mux_sound(self, until_s: float) -> None:
        for packet in self._sound.packets_until(until_s) if self._sound else ():
            try:
                self._mux(packet)
            except (InvalidDataError, PatchWelcomeError):
                self._rejected += 1
                source_s = float((packet.dts or 0) * packet.time_base) + self.zero_s + self.start_s
                self._damage.count_packet("audio", source_s)
        if self._rejected and until_s == float("inf"):
            log.warning("%s: %d corrupted audio packets left out", self.target, self._rejected)


class VideoPartWriter(VideoWriter):
    """Draw and encode a part of a video, and store its packets until all parts are joined."""

    def __init__(self, part: WrittenPart, target: Path, **settings: Any) -> None:
        """Prepare to write a part.

        Args:
            part: The files of the part.
            target: The video that the parts are joined to.
            settings: The other arguments of `VideoWriter` for the whole video.
        """
        super().__init__(target, **settings)
        self.path = part.packets

    def skip(self, masked: MaskedFrame) -> None:
        """Draw a frame of an earlier part without encoding it, so that fades continue."""
        self._draw(masked)

    def _begin(self, opened: ExitStack) -> None:
        source = opened.enter_context(open_media(self.info.path))
        file = opened.enter_context(self.path.open("wb"))
        self._open_container(os.devnull, _tick(source, self.video), {})
        opened.push(self._close)
        self._container.start_encoding()
        self._packets = PacketFile(file, self._encoder.codec_context.extradata or b"")

    def _keep_end(self, packets: "Sequence[Packet[AvVideoStream]]") -> None:
        """Keep all durations; only the end of the last part is that of the video."""

    def _check_any(self) -> None:
        """Accept a part without frames."""

    def _mux(self, packet: "Packet[Any]") -> None:
        self._packets.write(packet)

    def _encode(self, picture: VideoFrame | None) -> None:
        super()._encode(picture)
        if picture is None:
            self._packets.finish()


def _to_yuv(pixels: VideoFrame, size: tuple[int, int], pixel_format: str | None) -> Graph:
    """Return a converter of frames like this one to BT.709 with limited range.

    It is a filter, because only filters can set the position of chroma samples that players expect,
    which is at the left one of two pixels.
    """
    graph = Graph()
    graph.threads = CONVERTER_THREADS
    graph.link_nodes(
        graph.add(
            "buffer",
            f"video_size={pixels.width}x{pixels.height}:pix_fmt={pixels.format.name}:"
            "colorspace=gbr:range=pc:time_base=1/1",
        ),
        graph.add("scale", f"w={size[0]}:h={size[1]}:{TO_YUV}"),
        graph.add("format", pixel_format),
        graph.add("buffersink"),
    ).configure()
    return graph


def _tick(source: InputContainer, video: VideoStream) -> Fraction:
    """Return the clock tick of the output in seconds: as in the source, so that times are exact."""
    tick = source.streams[video.index].time_base or COARSEST_TICK
    while tick > COARSEST_TICK:
        tick /= 2
    # FFmpeg's numbers have 32 bits.
    return FINEST_TICK if tick.denominator >= 1 << 31 else max(tick, FINEST_TICK)
