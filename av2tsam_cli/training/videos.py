"""The videos of a training: found, checked, and with their embeddings."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from av2tsam_cli.data.avsbench import Clip, Damaged, find_root, open_split
from av2tsam_cli.data.batches import draw
from av2tsam_cli.data.cache import EmbeddingCache, default_folder
from av2tsam_cli.data.check import keep_readable
from av2tsam_cli.data.samples import ReadSample, embed_from, read_sample
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.progress import Done

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Videos:
    """What is learnt from and what is scored."""

    root: Path
    """The data folder."""
    train: tuple[Clip, ...] = field(repr=False)
    val: tuple[Clip, ...] = field(repr=False)

    @property
    def digest(self) -> str:
        """Tells whether it is the same videos in the same order."""
        names = [f"{clip.split}/{clip.category}/{clip.name}" for clip in (*self.train, *self.val)]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def find_videos(options: TrainOptions) -> Videos:
    """Open both splits and look whether every file is whole.

    Raises:
        UsageError: More videos are wanted than there are.
        MediaError: The data are not there, or a file is damaged.
    """
    root = find_root(options.data, options.data_root)
    train: Sequence[Clip] = open_split(root, options.subset, "train")
    if options.train_clips is not None:
        if options.train_clips > len(train):
            raise UsageError(f"--train-clips {options.train_clips}: there are only {len(train)}")
        train = draw(train, options.train_clips, seed=options.seed)
    splits = []
    for clips in (train, open_split(root, options.subset, "val")):
        kept, problems = keep_readable(clips, skip_bad=options.skip_bad)
        _say(problems)
        splits.append(kept)
    return Videos(root, *splits)


def embed(
    videos: Videos, network: Av2tSam, options: TrainOptions, progress: Done
) -> tuple[Videos, ReadSample]:
    """Compute the embeddings that are not in the cache.

    Returns:
        The videos that could be read, and what reads one with its embeddings.

    Raises:
        MediaError: A file is damaged; with `skip_bad`, only if no video of a split can be read.
        Av2tsamError: The cache cannot be written.
    """
    cache = EmbeddingCache.open_or_build(
        options.cache or default_folder(),
        network,
        (*videos.train, *videos.val),
        image=options.cache_features,
        skip_bad=options.skip_bad,
        progress=progress,
    )
    _say(cache.skipped)
    read = partial(read_sample, config=network.config, embed=embed_from(cache))
    train = tuple(clip for clip in cache.clips if clip.split == "train")
    val = tuple(clip for clip in cache.clips if clip.split == "val")
    for split, kept in (("train", train), ("val", val)):
        if not kept:
            raise MediaError(f"{videos.root}: all videos of the split {split} are damaged")
    return Videos(videos.root, train, val), read


def _say(problems: Sequence[Damaged]) -> None:
    for problem in problems:
        log.warning("left out: %s", problem.reason)
