"""Store encoded pictures in a file, to copy them into a video later."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from os import SEEK_CUR
from pathlib import Path
from struct import Struct
from typing import IO, Any, Literal

from av.packet import Packet, PacketSideData, packet_sidedata_type_from_literal

HEAD = Struct("<qq?II")
"""Header of a packet: presentation time and duration in ticks, whether it is a key frame, and the
number of bytes of the picture and of its transparency."""
START = Struct("<II")
"""Header of the file: the delay, and the number of bytes of the extradata, which follow."""
ALPHA: Literal["matroska_block_additional"] = "matroska_block_additional"
"""Type of the side data in which VP9 stores transparency."""
_Extra: Any = PacketSideData  # its stub lacks the arguments: the type and the size


@dataclass(frozen=True)
class Encoded:
    """The properties that all packets of a file share."""

    delay: int
    """Number of packets that are decoded before the first picture is shown; 0 without B-frames."""
    extradata: bytes = field(repr=False)
    """The encoder's description of the stream."""


class PacketFile:
    """Writes packets with their times to a file."""

    def __init__(self, file: IO[bytes], extradata: bytes) -> None:
        """Start an empty file, with the encoder's description of the stream."""
        self.file, self.extradata = file, extradata
        self._write_start(0)
        self.earliest: int | None = None
        """The earliest presentation time, in ticks; None without packets."""
        self._early_dts: list[int] = []

    def write(self, packet: "Packet[Any]") -> None:
        """Append a packet."""
        pts, dts = packet.pts or 0, packet.dts or 0
        alpha = bytes(packet.get_sidedata(ALPHA)) if packet.has_sidedata(ALPHA) else b""
        self.file.write(
            HEAD.pack(pts, packet.duration or 0, packet.is_keyframe, packet.size, len(alpha))
        )
        self.file.write(bytes(packet) + alpha)
        first = self.earliest is None
        self.earliest = pts if self.earliest is None else min(self.earliest, pts)
        if first or dts < self.earliest:
            self._early_dts.append(dts)

    def finish(self) -> None:
        """Complete the file."""
        self.file.seek(0)
        self._write_start(sum(dts < (self.earliest or 0) for dts in self._early_dts))

    def _write_start(self, delay: int) -> None:
        self.file.write(START.pack(delay, len(self.extradata)) + self.extradata)


def read_start(path: Path) -> Encoded:
    """Return the properties that all packets of a file share."""
    with path.open("rb") as file:
        delay, size = START.unpack(file.read(START.size))
        return Encoded(delay, file.read(size))


def read_packets(path: Path) -> Iterator["Packet[Any]"]:
    """Yield the packets of a file, without decoding times, a time base and a stream."""
    with path.open("rb") as file:
        _, size = START.unpack(file.read(START.size))
        file.seek(size, SEEK_CUR)
        while head := file.read(HEAD.size):
            pts, duration, is_key, size, alpha = HEAD.unpack(head)
            packet = Packet(file.read(size))
            packet.pts, packet.duration, packet.is_keyframe = pts, duration, is_key
            if alpha:
                extra = _Extra(packet_sidedata_type_from_literal(ALPHA), alpha)
                extra.update(file.read(alpha))
                packet.set_sidedata(extra)
            yield packet


def with_decoding_times(packets: Iterable["Packet[Any]"], delay: int) -> Iterator["Packet[Any]"]:
    """Set the decoding times that an encoder would set for the whole video.

    The decoding time of a packet is the presentation time of the picture `delay` pictures earlier
    in display order. For the first `delay` packets, these are the times of the first pictures,
    shifted back by the duration of `delay` pictures.

    Args:
        packets: Packets in decoding order.
        delay: See `Encoded`.
    """
    upcoming = iter(packets)
    first = list(islice(upcoming, 2 * delay + 1))  # the first pictures are among them
    times = sorted(packet.pts or 0 for packet in first)[: delay + 1]
    early = [time - (times[-1] - times[0]) for time in times[:delay]]
    shown: list[int] = []  # a heap
    for number, packet in enumerate(chain(first, upcoming)):
        heapq.heappush(shown, packet.pts or 0)
        packet.dts = early[number] if number < delay else heapq.heappop(shown)
        yield packet
