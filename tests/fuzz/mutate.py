"""Mutations of the bytes of a file, for fuzzers.

The same `random.Random` makes the same file: `mutate(data, Random(f"{seed}-{number}"))`.
"""

import re
from collections.abc import Callable, Sequence
from random import Random

EXTREMES = (0, 1, -1, 2, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 1 << 16, 32_768, 1_000_000_000)
"""Numbers at the limits of their types, and large sizes and rates; longer ones follow."""
LONG_EXTREMES = (1 << 24, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, (1 << 63) - 1, 1 << 63)
NUMBERS_IN_TEXT = (
    *(b"0", b"-1", b"1e309", b"-1e309", b"nan", b"inf", b"0.0000001", b"1.5", b"", b"null"),
    *(b"4294967296", b"2147483648", b"9223372036854775808", b"99999999999999999999999", b"1000000"),
)
"""What replaces a number that is written in decimal digits."""
NEAR = 96
"""Bytes after a mark in which its fields are."""

Mutation = Callable[[bytes, int, Random], bytes]
"""Changes data at a position that was chosen for it."""


def mutate(data: bytes, random: Random, *, marks: Sequence[bytes] = ()) -> tuple[bytes, str]:
    """Return the data with one to four mutations, and their names.

    Args:
        data: The content of a valid file.
        random: Decides what is changed, and how.
        marks: Byte strings before fields of interest, such as `b"tkhd"`; half of the mutations are
            just after one of those that the data contains.
    """
    spots = [found.end() for mark in marks for found in re.finditer(re.escape(mark), data)]
    names = []
    for _ in range(random.choice((1, 1, 2, 4))):
        name, change = random.choice(list(MUTATIONS.items()))
        data = change(data, _position(len(data), spots, random), random)
        names.append(name)
    return data, "+".join(names)


def flip_bits(data: bytes, at: int, random: Random) -> bytes:
    """Flip up to eight bits, one per byte, close to each other."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        place = min(at + random.randrange(32), len(data) - 1)
        if place >= 0:
            changed[place] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, at: int, random: Random) -> bytes:
    """Overwrite a run of bytes with zeros, ones or noise."""
    length = min(_length(random), len(data) - at)
    run = random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))
    return data[:at] + run + data[at + length :]


def insert(data: bytes, at: int, random: Random) -> bytes:
    """Insert zeros or noise."""
    length = _length(random)
    return data[:at] + random.choice((bytes(length), random.randbytes(length))) + data[at:]


def delete(data: bytes, at: int, random: Random) -> bytes:
    """Delete a run of bytes."""
    return data[:at] + data[at + _length(random) :]


def duplicate(data: bytes, at: int, random: Random) -> bytes:
    """Repeat a run of bytes up to eight times."""
    chunk = data[at : at + _length(random)]
    return data[:at] + chunk * random.randint(1, 8) + data[at:]


def swap(data: bytes, at: int, random: Random) -> bytes:
    """Swap two runs of bytes of the same length."""
    first, second = sorted((at, random.randrange(len(data) + 1)))
    length = min(_length(random), second - first)
    a, b = data[first : first + length], data[second : second + length]
    return data[:first] + b + data[first + length : second] + a + data[second + length :]


def truncate(data: bytes, at: int, random: Random) -> bytes:
    """End the file early."""
    return data[: random.choice((at, random.randrange(len(data) + 1)))]


def set_integer(data: bytes, at: int, random: Random) -> bytes:
    """Set an integer of 1, 2, 4 or 8 bytes to an extreme value."""
    size = random.choice((1, 2, 4, 4, 8))
    value = random.choice(EXTREMES if size < 4 else EXTREMES + LONG_EXTREMES)
    field = (value % (1 << 8 * size)).to_bytes(size, random.choice(("big", "little")))
    return data[:at] + field + data[at + size :]


def set_number(data: bytes, at: int, random: Random) -> bytes:
    """Replace a number in text by an extreme one; without any near, set a binary one."""
    found = re.compile(rb"-?\d+(\.\d+)?").search(data, at, at + 200)
    if found is None:
        return set_integer(data, at, random)
    return data[: found.start()] + random.choice(NUMBERS_IN_TEXT) + data[found.end() :]


MUTATIONS: dict[str, Mutation] = {
    change.__name__: change
    for change in (
        *(flip_bits, overwrite, insert, delete, duplicate, swap, truncate, set_integer),
        set_number,
    )
}
"""All mutations by name."""


def _position(size: int, spots: Sequence[int], random: Random) -> int:
    """Choose a position: after a mark, near the beginning or the end, or anywhere."""
    if spots and random.random() < 0.5:
        return min(random.choice(spots) + random.randrange(NEAR), size)
    part = random.random()
    if part < 0.4:
        return random.randrange(min(size, 1024) + 1)
    if part < 0.5:
        return max(0, size - random.randrange(1024))
    return random.randrange(size + 1)


def _length(random: Random) -> int:
    """Choose a length: short ones are more frequent."""
    return 1 << random.randrange(13) if random.random() < 0.5 else random.randint(1, 64)
