import re
import zlib

import numpy as np
import pytest

from asr_tf.data.scenes import Scenes


def _images(n=4, height=3, width=5, channels=1):
    return np.arange(n * height * width * channels, dtype=np.uint8).reshape(n, height, width, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_take_and_select_keep_everything_together(channels):
    images = _images(channels=channels)
    masks = np.arange(4 * 2 * 15, dtype=np.uint8).reshape(4, 2, 3, 5)
    scenes = Scenes(images, counts=np.arange(4), boxes=np.ones((4, 2, 4), np.float32), masks=masks)
    few = scenes.take(3)
    assert (len(few), few.canvas_size, few.channels) == (3, (3, 5), channels)
    np.testing.assert_array_equal(few.masks, masks[:3])
    picked = scenes.select(np.array([2, 0]))
    np.testing.assert_array_equal(picked.counts, [2, 0])
    np.testing.assert_array_equal(picked.images, images[[2, 0]])
    np.testing.assert_array_equal(picked.masks, masks[[2, 0]])
    assert picked.boxes.shape == (2, 2, 4)
    assert picked.ink_boxes is None


def test_fingerprint_tells_images_apart():
    grey, rgb = Scenes(_images(3, 2, 6)), Scenes(_images(3, 2, 2, channels=3))
    checksum = f"{zlib.crc32(bytes(range(36))):08x}"
    assert grey.fingerprint() == f"3 images (checksum {checksum})"
    assert rgb.fingerprint() == f"3 RGB images (checksum {checksum})"
    # Channels that change places are other images, and so are images that do.
    others = [rgb, Scenes(rgb.images[..., ::-1]), rgb.select(np.array([1, 0, 2])), rgb.take(2)]
    assert len({scenes.fingerprint() for scenes in others}) == 4
    assert Scenes(np.asfortranarray(rgb.images)).fingerprint() == rgb.fingerprint()


def test_wrong_arrays_are_refused():
    with pytest.raises(TypeError, match="uint8, got dtype float32"):
        Scenes(_images().astype(np.float32))
    with pytest.raises(ValueError, match=r"\[N, H, W, 1\] \(grey\) or \[N, H, W, 3\] \(RGB\), got \[4, 3, 5\]"):
        Scenes(_images()[..., 0])
    for channels in (0, 2, 4):
        with pytest.raises(ValueError, match=rf"images of scenes must have shape .* got \[4, 3, 5, {channels}\]"):
            Scenes(_images(channels=channels))
    with pytest.raises(ValueError, match="empty data set"):
        Scenes(_images(0))
    with pytest.raises(ValueError, match=r"counts of scenes must have 1 axes, 4 rows, got shape \[3\]"):
        Scenes(_images(), counts=np.arange(3))
    with pytest.raises(ValueError, match=r"4 columns, got shape \[4, 2, 3\]"):
        Scenes(_images(), boxes=np.zeros((4, 2, 3)))
    with pytest.raises(TypeError, match=r"^masks of scenes must be uint8, got dtype float32\.$"):
        Scenes(_images(), masks=np.zeros((4, 2, 3, 5), np.float32))
    for shape in ((3, 2, 3, 5), (4, 3, 5), (4, 2, 5, 3), (4, 2, 3, 5, 1)):
        message = re.escape("masks of scenes must have shape [4, M, 3, 5], as many rows as there are images and")
        with pytest.raises(ValueError, match=f"^{message} their height and width, got {re.escape(str(list(shape)))}"):
            Scenes(_images(), masks=np.zeros(shape, np.uint8))
