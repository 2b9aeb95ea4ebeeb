"""The words route: nano names and masks the sources that are heard, several at once too."""

from pathlib import Path

import numpy as np
import pytest
import torch

from av2tsam_cli.errors import MediaError, UsageError, WeightsError
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import Segmenter
from av2tsam_cli.pipeline import iter_masks
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.values import AudioWindow, HeardSource
from av2tsam_cli.words.segmenter import NO_MASK, WordsSegmenter

SAMPLES = Path(__file__).parents[2] / "sample_media"


@pytest.fixture(scope="module")
def nano() -> LoadedModel:
    return load_model("nano", device="cpu", precision="fp32", use="words")


@pytest.fixture(scope="module")
def segmenter(nano: LoadedModel) -> WordsSegmenter:
    return WordsSegmenter(nano)


def window(*names: str) -> AudioWindow:
    heard = tuple(HeardSource(name, 0.9) for name in names)
    return AudioWindow(np.zeros(16_000, np.float32), 0, 16_000, sources=heard)


@pytest.fixture(scope="module")
def picture() -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    """Return a frame, the true mask of each thing in it, and the name of something else."""
    scene = sample_scene(scene_rng("test", 0, 3), subset="ms3")
    rgb, ids = Renderer(scene, 320, 320).frame(0.5)
    masks = {each.category: ids == slot for slot, each in enumerate(scene.instances, start=1)}
    other = next(name for name in ("drum", "bee", "frog", "phone") if name not in masks)
    return rgb, {name: mask for name, mask in masks.items() if mask.mean() > 0.01}, other


def test_each_name_gets_its_own_mask(
    segmenter: WordsSegmenter, picture: tuple[np.ndarray, dict[str, np.ndarray], str]
) -> None:
    rgb, masks, _ = picture
    (logits,) = segmenter.source_logits(segmenter.prepare([rgb]), [window(*masks)])
    resize = segmenter.model.network.text_sam.resize
    found = (resize(logits[None].float(), rgb.shape[:2])[0] > 0).numpy()
    assert len(masks) > 1
    for mask, true in zip(found, masks.values(), strict=True):
        assert (mask & true).sum() / (mask | true).sum() > 0.7


def test_what_is_heard_but_not_in_view_gets_no_mask(
    segmenter: WordsSegmenter, picture: tuple[np.ndarray, dict[str, np.ndarray], str]
) -> None:
    rgb, masks, other = picture
    first = next(iter(masks))
    (logits,) = segmenter.source_logits(segmenter.prepare([rgb]), [window(other, first)])
    assert (logits[0] == NO_MASK).all()
    assert (logits[1] > 0).any()


def test_names_and_frames_do_not_influence_each_other(
    segmenter: WordsSegmenter, picture: tuple[np.ndarray, dict[str, np.ndarray], str]
) -> None:
    """A padded prompt, and a frame in a batch, give what they give alone."""
    rgb, masks, _ = picture
    names = list(masks)
    frames = [rgb, rgb[:, ::-1].copy()]
    heard = [window(*names), window(names[0])]
    together = segmenter.source_logits(segmenter.prepare(frames), heard)
    for frame, each, logits in zip(frames, heard, together, strict=True):
        for k, name in enumerate(segmenter.names_of(each)):
            (alone,) = segmenter.source_logits(segmenter.prepare([frame]), [window(name)])
            torch.testing.assert_close(logits[k], alone[0], atol=2e-3, rtol=1e-3)


def test_a_mask_of_a_name_is_that_of_the_text_prompt(
    nano: LoadedModel,
    segmenter: WordsSegmenter,
    picture: tuple[np.ndarray, dict[str, np.ndarray], str],
) -> None:
    rgb, masks, _ = picture
    name = next(iter(masks))
    (logits,) = segmenter.source_logits(segmenter.prepare([rgb]), [window(name)])
    prompted = Segmenter(nano, f"the {name}")
    torch.testing.assert_close(
        logits[None], prompted.logits(prompted.prepare([rgb]), []), atol=2e-3, rtol=1e-3
    )


def test_the_duet_is_named_at_the_right_times(nano: LoadedModel) -> None:
    """The dog barks from 0 to 2 s and from 4 to 6 s, the trumpet plays from 2 to 6 s."""
    heard = {}
    for frame in iter_masks(SAMPLES / "duet.mp4", hear="words", model=nano, fps=5, refine=False):
        assert frame.sources is not None
        assert np.array_equal(frame.sources.labels > 0, frame.mask)
        assert (frame.probability[frame.mask] > 0.5).all()
        second, part = divmod(frame.frame.time_s, 1)
        if 0.2 < part < 0.8:  # not within 0.2 s of a change
            in_view = {name for name, _ in frame.sources.areas()}
            heard.setdefault(int(second), set()).add(frozenset(in_view))
    dog, trumpet = frozenset({"dog"}), frozenset({"trumpet"})
    expected = [dog, dog, trumpet, trumpet, dog | trumpet, dog | trumpet, set(), set()]
    assert heard == {second: {frozenset(names)} for second, names in enumerate(expected)}


def test_only_chosen_names_are_masked(nano: LoadedModel) -> None:
    found = set()
    for frame in iter_masks(
        SAMPLES / "duet.mp4", hear="words", name=["trumpet"], model=nano, fps=1, start=1.5, end=3
    ):
        assert frame.sources is not None
        found |= {(name, frame.frame.time_s >= 2) for name, _ in frame.sources.areas()}
    assert found == {("trumpet", True)}


def test_a_text_prompt_names_its_mask(nano: LoadedModel) -> None:
    frame = next(iter_masks(SAMPLES / "duet.mp4", text="the dog", model=nano))
    assert frame.sources is not None
    assert frame.sources.names == ("the dog",)
    assert np.array_equal(frame.sources.labels.astype(bool), frame.mask)


def test_an_unknown_name_is_rejected_with_a_hint(nano: LoadedModel) -> None:
    with pytest.raises(UsageError, match="'trumpett'; did you mean 'trumpet'"):
        WordsSegmenter(nano, None, ["trumpett"])


def test_a_small_model_is_asked_for_its_names_by_their_synonyms_too(nano: LoadedModel) -> None:
    chosen = WordsSegmenter(nano, None, ["telephone", "acoustic guitar"]).hearing.vocabulary
    assert [source.name for source in chosen.sources] == ["phone", "guitar"]


def test_a_vocabulary_with_names_that_a_small_model_lacks_is_rejected(
    nano: LoadedModel, tmp_path: Path
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("dog\nzebra\n")
    with pytest.raises(UsageError, match="'zebra'"):
        WordsSegmenter(nano, file)
    file.write_text("dog\n")
    assert [s.name for s in WordsSegmenter(nano, file).hearing.vocabulary.sources] == ["dog"]


def test_an_empty_vocabulary_is_rejected(nano: LoadedModel, tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("")
    with pytest.raises(MediaError, match="contains no source"):
        WordsSegmenter(nano, file)


def test_an_option_that_needs_names_chooses_the_words_route() -> None:
    frame = next(iter_masks(SAMPLES / "duet.mp4", name=["dog"], model="nano", device="cpu"))
    assert frame.sources is not None
    assert SegmentOptions(names=True).use == "words"
    assert SegmentOptions(format="indexed-masks").use == "words"
    assert SegmentOptions(names=True, text="the dog").use == "text"
    assert SegmentOptions().use is None


def test_names_need_the_words_route(nano: LoadedModel) -> None:
    with pytest.raises(UsageError, match="`name` needs names; set `hear` to words"):
        iter_masks(SAMPLES / "duet.mp4", name=["dog"], hear="trained")
    with pytest.raises(UsageError, match="`hear` has no effect with `text`"):
        iter_masks(SAMPLES / "duet.mp4", text="the dog", hear="words")
    with pytest.raises(WeightsError, match=r"`use` words.* `use` trained"):
        iter_masks(SAMPLES / "duet.mp4", hear="trained", model=nano)
