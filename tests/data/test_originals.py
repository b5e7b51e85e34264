import hashlib

import numpy as np
import pytest
import testing_data

from asr_tf.data import originals
from asr_tf.data.originals import find_mnist, read_dsprites, read_mnist


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
@pytest.mark.parametrize("subfolder", ["", "mnist", "MNIST/raw", "raw"])
def test_idx_files_plain_or_packed(tmp_path, suffix, spelling, subfolder):
    """Also where torchvision puts them, and as others call them."""
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True, parents=True)
    testing_data.write_tiny_mnist(folder, suffix)
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("-idx", spelling))
    for split, grey in (("train", 200), ("test", 100)):
        bank = read_mnist(tmp_path, split)
        assert bank.images.shape == (20, 28, 28)
        assert bank.images.max() == grey
        np.testing.assert_array_equal(bank.labels, np.arange(20) % 10)


def test_missing_and_broken_idx_files(tmp_path):
    assert find_mnist(tmp_path, "train") is None
    with pytest.raises(ValueError, match="doesn't hold the MNIST test files t10k-images-idx3-ubyte"):
        read_mnist(tmp_path, "test")
    testing_data.write_tiny_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz cannot be read"):
        read_mnist(tmp_path, "train")
    path.write_bytes(b"no gzip file at all")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz cannot be read"):
        read_mnist(tmp_path, "train")
    path.unlink()
    plain = tmp_path / "train-images-idx3-ubyte"
    testing_data.write_idx(plain, np.zeros((20, 28, 28), np.uint8))
    plain.write_bytes(plain.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"cut short or too long: 15679 bytes for shape \[20, 28, 28\]"):
        read_mnist(tmp_path, "train")
    plain.write_bytes(b"\x00\x00\x0d\x03")
    with pytest.raises(ValueError, match="not an idx file of bytes, got 4 bytes of something else"):
        read_mnist(tmp_path, "train")
    plain.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="not an idx file of bytes, got a pointer of Git LFS"):
        read_mnist(tmp_path, "train")
    testing_data.write_idx(plain, np.zeros((19, 28, 28), np.uint8))
    with pytest.raises(ValueError, match="don't belong together"):
        read_mnist(tmp_path, "train")


def test_packed_files_without_gz_in_their_names(tmp_path):
    testing_data.write_tiny_mnist(tmp_path, ".gz")
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_suffix(""))
    assert read_mnist(tmp_path, "train").images.shape == (20, 28, 28)


def test_real_mnist():
    bank = read_mnist(testing_data.mnist_dir(), "train")
    # Sum over the bytes of the original file, header and all.
    header = b"\x00\x00\x08\x03" + np.array([60000, 28, 28], ">i4").tobytes()
    assert hashlib.md5(header + bank.images.tobytes()).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    assert bank.labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_only_the_wanted_sprites_of_a_large_file(tmp_path, monkeypatch):
    """A file with all factors: colour 0, largest scale and first position are kept, over several reads."""
    factors = np.stack(np.meshgrid([0], range(3), range(2), range(5), range(2), range(2), indexing="ij"), -1)
    classes = factors.reshape(-1, 6)
    images = np.zeros((len(classes), 4, 6), np.uint8)
    images[:, 0, 0] = 1
    images.reshape(len(images), -1)[np.arange(len(images)), 1 + np.arange(len(images)) % 23] = 1
    np.savez_compressed(tmp_path / originals.DSPRITES_NAMES[0], imgs=images, latents_classes=classes)
    monkeypatch.setattr(originals, "_ROWS_A_READ", 7)
    bank, orientations = read_dsprites(tmp_path)
    wanted = (classes[:, 2] == 1) & (classes[:, 4] == 0) & (classes[:, 5] == 0)
    np.testing.assert_array_equal(bank.images, images[wanted] * 255)
    np.testing.assert_array_equal(bank.labels, np.repeat([0, 1, 2], 5))
    np.testing.assert_array_equal(orientations, np.tile(np.arange(5), 3))


def test_missing_and_broken_dsprites(tmp_path):
    with pytest.raises(ValueError, match="doesn't hold the dSprites file dsprites_ndarray_co1sh3sc6or40x32y32"):
        read_dsprites(tmp_path)
    path = tmp_path / originals.DSPRITES_NAMES[1]
    np.savez(path, pictures=np.zeros(3))
    with pytest.raises(ValueError, match="not a dSprites file with the arrays imgs and latents_classes"):
        read_dsprites(tmp_path)
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="not a dSprites file"):
        read_dsprites(tmp_path)


def test_real_dsprites():
    bank, orientations = read_dsprites(testing_data.dsprites_file().parents[1])
    assert bank.images.shape == (120, 64, 64)
    assert set(np.unique(bank.images)) == {0, 255}
    assert np.bincount(bank.labels).tolist() == [40, 40, 40]
    assert np.bincount(orientations).tolist() == [3] * 40
