"""Sampled scenes: which objects are in view, which sound, and what is held out."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from av2tsam_cli.synth.scenes import CATEGORIES, sample_scene, scene_rng
from av2tsam_cli.synth.shapes import DRAWINGS
from av2tsam_cli.synth.sounds import VOICES
from av2tsam_cli.synth.values import Scene, SynthSubset, Voice

SUBSETS: tuple[SynthSubset, ...] = get_args(SynthSubset)


def scenes(subset: SynthSubset, count: int = 300) -> list[Scene]:
    return [sample_scene(scene_rng("test", 7, k), subset=subset) for k in range(count)]


def silent(scene: Scene) -> int:
    return sum(instance.voice is None for instance in scene.instances)


def negative(scene: Scene) -> bool:
    return all(instance.voice is None for instance in scene.instances)


def test_every_category_has_a_look_a_sound_and_a_caption() -> None:
    names = [category.name for category in CATEGORIES]
    assert len(set(names)) == len(names) >= 16
    assert set(names) == set(DRAWINGS) == set(VOICES)
    assert all(category.noun == f"the {category.name}" for category in CATEGORIES)


@pytest.mark.parametrize("subset", ["s4", "ms3"])
def test_the_same_seed_gives_the_same_scene(subset: SynthSubset) -> None:
    assert sample_scene(scene_rng("train", 1, 2), subset=subset) == sample_scene(
        scene_rng("train", 1, 2), subset=subset
    )


def test_no_pool_of_seeds_repeats_a_scene_of_another() -> None:
    sampled = [
        sample_scene(scene_rng(pool, seed, index), subset="s4")
        for pool in ("train", "val", "test", "samples")
        for seed in (0, 1, 2)
        for index in (0, 1, 2)
    ]
    assert len(set(sampled)) == len(sampled)


def test_s4_has_one_source_that_sounds_all_the_time() -> None:
    for scene in scenes("s4"):
        if not negative(scene):
            (source,) = [i for i in scene.instances if i.voice]
            assert source.voice.turns == ((0, 5),)
            assert scene.voices == (source.voice,)


def test_ms3_sources_take_turns_overlap_start_and_stop() -> None:
    sampled = [scene for scene in scenes("ms3") if not negative(scene)]
    sounding = [[len(scene.sounding(second)) for second in range(5)] for scene in sampled]
    assert {sum(i.voice is not None for i in scene.instances) for scene in sampled} == {2, 3}
    assert all(i.voice.turns for scene in sampled for i in scene.instances if i.voice)
    assert any(max(counts) >= 2 for counts in sounding)
    turns = [
        scene
        for scene, counts in zip(sampled, sounding, strict=True)
        if counts == [1] * 5 and len({scene.sounding(second) for second in range(5)}) > 1
    ]
    assert len(turns) > 0.1 * len(sampled)
    assert any(0 in counts for counts in sounding)


def test_scenes_on_the_grid_are_those_of_earlier_versions() -> None:
    sampled = scenes("ms3", 20)
    assert sum(voice.seed for scene in sampled for voice in scene.voices) == 40603380649
    assert [voice.turns for voice in sampled[2].voices] == [((0.0, 2.0),), ((2.0, 5.0),)]


@pytest.mark.parametrize("subset", ["s4", "ms3"])
def test_off_the_grid_only_the_turns_differ(subset: SynthSubset) -> None:
    for index, scene in enumerate(scenes(subset, 20)):
        moved = sample_scene(scene_rng("test", 7, index), subset=subset, off_grid=True)
        assert moved == sample_scene(scene_rng("test", 7, index), subset=subset, off_grid=True)
        assert without_turns(moved) == without_turns(scene)


def without_turns(scene: Scene) -> Scene:
    def plain(voice: Voice | None) -> Voice | None:
        return replace(voice, turns=(), aligned=False) if voice else None

    instances = tuple(replace(each, voice=plain(each.voice)) for each in scene.instances)
    return replace(scene, instances=instances, off_screen=plain(scene.off_screen))


def test_off_the_grid_sources_start_and_stop_anywhere() -> None:
    sampled = [
        sample_scene(scene_rng("test", 7, k), subset=subset, off_grid=True)
        for subset in SUBSETS
        for k in range(100)
    ]
    voices = [voice for scene in sampled for voice in scene.voices]
    times = {time for voice in voices for turn in voice.turns for time in turn}
    assert min(times) == 0
    assert max(times) == 5
    assert np.std([time % 1 for time in times]) > 0.25  # 0.29 if uniform
    assert all(stop - start >= 0.7 for voice in voices for start, stop in voice.turns)
    assert {len(voice.turns) for voice in voices} >= {1, 2}
    together = [[t for v in scene.voices for turn in v.turns for t in turn] for scene in sampled]
    assert any(len(set(each) - {0, 5}) < len([t for t in each if 0 < t < 5]) for each in together)


@pytest.mark.parametrize("subset", ["s4", "ms3"])
def test_most_scenes_have_silent_objects_and_some_have_no_sound_source(subset: SynthSubset) -> None:
    sampled = scenes(subset)
    assert np.mean([silent(scene) > 0 for scene in sampled]) >= 0.65
    assert 0.05 <= np.mean([negative(scene) for scene in sampled]) <= 0.16
    kinds = {scene.off_screen is not None for scene in sampled if negative(scene)}
    assert kinds == {True, False}  # a source elsewhere, or only noise
    assert all(scene.voices or scene.noise for scene in sampled)


@pytest.mark.parametrize("subset", ["s4", "ms3"])
def test_no_category_occurs_twice_and_off_screen_sources_are_not_in_view(
    subset: SynthSubset,
) -> None:
    for scene in scenes(subset):
        names = [instance.category for instance in scene.instances]
        names += [scene.off_screen.category] if scene.off_screen else []
        assert len(set(names)) == len(names)


def test_all_aspects_and_categories_occur() -> None:
    sampled = scenes("ms3")
    assert {scene.aspect for scene in sampled} == {(16, 9), (4, 3), (1, 1)}
    assert {i.category for scene in sampled for i in scene.instances} == set(DRAWINGS)
