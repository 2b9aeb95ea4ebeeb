"""The files of a part of a video, until the parts are joined."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from av2tsam_cli.values import FrameSummary, MaskedFrame, NamedArea


@dataclass(frozen=True)
class WrittenPart:
    """The folder of a part of a video."""

    folder: Path
    """The folder."""
    frames: int = 0
    """Number of frames in the part."""

    @property
    def packets(self) -> Path:
        """The encoded pictures of an output video, see `PacketFile`."""
        return self.folder / "packets"

    @property
    def files(self) -> Path:
        """The folder with PNGs or pieces of a data set; frames are numbered from 0."""
        return self.folder / "files"

    @property
    def rows(self) -> Path:
        """The rows of the frame table, numbered from 0."""
        return self.folder / "frames.csv"

    @property
    def summaries(self) -> Path:
        """The frame summaries, see `SummaryLines`."""
        return self.folder / "frames.jsonl"

    def moment(self, index: int) -> Path:
        """A candidate frame for a contact sheet, by its index in the part."""
        return self.folder / "moments" / f"{index}.npz"

    def read_summaries(self, first: int) -> Iterator[FrameSummary]:
        """Yield the summaries of the frames, numbered from `first` on."""
        with self.summaries.open(encoding="utf-8") as file:
            for index, line in enumerate(file, start=first):
                values = json.loads(line)
                sources = values["sources"]
                if sources is not None:
                    values["sources"] = tuple(NamedArea(**each) for each in sources)
                yield FrameSummary(**{**values, "size": tuple(values["size"]), "index": index})


class SummaryLines:
    """Writes the summary of each frame of a part as a line of JSON."""

    def __init__(self, part: WrittenPart) -> None:
        self.path = part.summaries
        self.frames = 0

    def write(self, masked: MaskedFrame) -> None:
        """Write the next frame."""
        self.frames += 1
        self._file.write(json.dumps(asdict(masked.summary), ensure_ascii=False) + "\n")

    def __enter__(self) -> Self:
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read_summaries(parts: Iterable[WrittenPart]) -> Iterator[FrameSummary]:
    """Yield the summaries of the frames of parts, in order."""
    for first, part in numbered(parts):
        yield from part.read_summaries(first)


def numbered(parts: Iterable[WrittenPart]) -> Iterator[tuple[int, WrittenPart]]:
    """Yield parts in order, each with the index of its first frame."""
    first = 0
    for part in parts:
        yield first, part
        first += part.frames
