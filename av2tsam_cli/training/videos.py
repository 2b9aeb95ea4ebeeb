"""The videos of a training: found, checked, and with cached embeddings."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from av2tsam_cli.avsbench_format import SPLITS
from av2tsam_cli.data.avsbench import Clip, find_root, open_split, open_subset
from av2tsam_cli.data.cache import EmbeddingCache, content_hash, default_folder
from av2tsam_cli.data.check import THREADS, require_intact
from av2tsam_cli.data.samples import ReadSample, random_subset, read_sample
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.values import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Videos:
    """The videos to train on, and those to validate and to test on."""

    root: Path
    """The data folder."""
    train: tuple[Clip, ...] = field(repr=False)
    """The training videos, in the order of the data set."""
    val: tuple[Clip, ...] = field(repr=False)
    """The validation split, in the order of the data set."""
    test: tuple[Clip, ...] = field(repr=False)
    """The test split, in the order of the data set; empty if there is none or it is not used."""
    deviations: Mapping[str, int]
    """Number of videos with each of `data.check.DEVIATIONS`."""
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)
    """A hash of the names, order and content of each split's videos; empty until `embed_videos` has
    read them."""


def find_videos(options: TrainOptions) -> Videos:
    """Open the splits, and check that all files are intact.

    Raises:
        UsageError: `train_clips` is larger than the split.
        MediaError: The data are missing, a file is corrupted and `skip_bad` is not set, or a raw
            video replaces missing files and `strict` is set.
    """
    root = find_root(options.data, options.data_root)
    train: Sequence[Clip] = open_split(root, options.subset, "train")
    if options.train_clips is not None:
        if options.train_clips > len(train):
            raise UsageError(
                f"`train_clips` {options.train_clips}: the training split has only {len(train)} "
                "videos"
            )
        train = random_subset(train, options.train_clips, seed=options.seed)
    clips = [*train, *open_split(root, options.subset, "val"), *_test_split(root, options)]
    checked = require_intact(clips, skip_bad=options.skip_bad, strict=options.strict)
    train, val, test = _divide(root, clips, checked.intact).values()
    return Videos(root, train, val, test, checked.counts)


def _test_split(root: Path, options: TrainOptions) -> tuple[Clip, ...]:
    if not options.test:
        return ()
    clips = tuple(clip for clip in open_subset(root, options.subset) if clip.split == "test")
    if not clips:
        log.warning("%s: has no test split, so there will be no test score", root)
    return clips


def _divide(
    root: Path, wanted: Sequence[Clip], usable: Sequence[Clip]
) -> dict[str, tuple[Clip, ...]]:
    """Divide the usable clips by their split.

    Raises:
        MediaError: None of a split's wanted clips is usable.
    """
    splits: dict[str, tuple[Clip, ...]] = {
        split: tuple(clip for clip in usable if clip.split == split) for split in SPLITS
    }
    for split in dict.fromkeys(clip.split for clip in wanted):
        if not splits[split]:
            raise MediaError(
                f"{root}: every video of the split {split!r} is corrupted; copy the data again"
            )
    return splits


def embed_videos(
    videos: Videos, network: Av2tSam, options: TrainOptions, progress: Progress
) -> tuple[Videos, ReadSample]:
    """Compute the embeddings that the cache does not contain.

    Returns:
        The videos that could be read, and a function that reads one with its embeddings.

    Raises:
        MediaError: A file is corrupted; with `skip_bad`, only if a whole split is.
        Av2tsamError: The cache cannot be written.
    """
    clips = (*videos.train, *videos.val, *videos.test)
    cache = EmbeddingCache.open_or_build(
        options.cache or default_folder(),
        network,
        clips,
        image=options.cache_features,
        skip_bad=options.skip_bad,
        progress=progress,
    )
    for problem in cache.skipped:
        log.warning("skipped %s: %s", problem.clip.name, problem.message)
    read = partial(read_sample, config=network.config, embed=cache.read)
    splits = _divide(videos.root, clips, cache.clips)
    digests = {name: _digest(kept, cache.content) for name, kept in splits.items() if kept}
    train, val, test = splits.values()
    return Videos(videos.root, train, val, test, videos.deviations, digests), read


def _digest(clips: Sequence[Clip], content: Mapping[Clip, str]) -> str:
    """Return a hash of the names and order of videos, and of their frames, sound and masks.

    Args:
        clips: The videos.
        content: Hashes of their frames and sound, which the cache has computed.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        masks = list(pool.map(lambda clip: content_hash(clip, filter(None, clip.masks)), clips))
    lines = [
        f"{clip.category}/{clip.name} {content[clip]} {mask}"
        for clip, mask in zip(clips, masks, strict=True)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
