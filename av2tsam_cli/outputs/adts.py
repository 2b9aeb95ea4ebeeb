"""Headers of AAC packets in MPEG-TS."""

from dataclasses import dataclass
from typing import Any, Self

from av.packet import Packet

SIZE = 7
"""Bytes of a header without a checksum."""
RATES_HZ = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "7.1"}
"""FFmpeg's names of the channel configurations."""


@dataclass(frozen=True)
class AdtsHeader:
    """The rate and channels of a packet (ADTS, ISO/IEC 13818-7)."""

    data: bytes
    """The bytes of the header."""

    @classmethod
    def of(cls, packet: "Packet[Any]") -> Self | None:
        """Return the header of a packet; None if it has none."""
        data = bytes(memoryview(packet)[:SIZE])
        is_adts = len(data) == SIZE and data[0] == 0xFF and data[1] & 0xF6 == 0xF0
        found = cls(data) if is_adts else None
        return found if found is not None and found.layout and found.rate_hz else None

    @property
    def rate_hz(self) -> int:
        """Samples per second; 0 if the value is reserved."""
        return dict(enumerate(RATES_HZ)).get(self.data[2] >> 2 & 15, 0)

    @property
    def layout(self) -> str:
        """FFmpeg's name of the channel layout; "" if the stream describes it elsewhere."""
        return LAYOUTS.get((self.data[2] & 1) << 2 | self.data[3] >> 6, "")

    def fits(self, packet: "Packet[Any]") -> bool:
        """Return whether a packet has the same rate and channels."""
        other = self.of(packet)
        return other is None or (other.rate_hz, other.layout) == (self.rate_hz, self.layout)

    def before(self, packet: "Packet[Any]") -> bytes:
        """Return the data of an AAC packet with this header in front."""
        size = packet.size + SIZE
        head = bytearray(self.data)
        head[1] |= 1  # no checksum
        head[3] = head[3] & 0xC0 | size >> 11
        head[4], head[5], head[6] = size >> 3 & 0xFF, (size & 7) << 5 | 0x1F, 0xFC
        return bytes(head) + bytes(packet)
