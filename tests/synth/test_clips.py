"""Sample videos with a mask for every frame."""

from pathlib import Path

import av
import cv2
import numpy as np

from av2tsam_cli.synth.clips import sounding_mask, write_sample
from av2tsam_cli.synth.render import render
from av2tsam_cli.synth.scenes import sample_scene, scene_rng


def test_a_sample_has_a_mask_per_frame_and_the_sound_of_its_scene(tmp_path: Path) -> None:
    scene = sample_scene(scene_rng("samples", 0, 9), subset="ms3")
    write_sample(scene, tmp_path / "a.mp4", tmp_path / "a_masks", size=(160, 90), rate=5)
    with av.open(str(tmp_path / "a.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert video.streams.audio[0].rate == 48_000
    masks = sorted((tmp_path / "a_masks").iterdir())
    assert [path.name for path in masks] == [f"{k:06d}.png" for k in range(25)]
    assert len(frames) == 25
    for index in (0, 12, 24):
        rgb, ids = render(scene, index / 5, 160, 90)
        mask = cv2.imread(str(masks[index]), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        np.testing.assert_array_equal(mask, 255 * sounding_mask(scene, ids, index / 5))
        assert np.abs(frames[index].astype(int) - rgb).mean() < 16  # lossy, the same picture
