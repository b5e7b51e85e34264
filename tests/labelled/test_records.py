from __future__ import annotations

import pytest
import tensorflow as tf

from asr_tf.labelled.records import replacing_records


def test_a_record_is_there_when_it_is_whole(tmp_path):
    path = tmp_path / "a.tfrecord"
    with replacing_records(path) as writer:
        writer.write(b"first")
        assert not path.exists()
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == [b"first"]
    with pytest.raises(KeyError), replacing_records(path) as writer:
        raise KeyError
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == [b"first"]


def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    (tmp_path / "a.tfrecord.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"), replacing_records(tmp_path / "a.tfrecord") as writer:
        writer.write(bytes(1 << 20))
    assert not (tmp_path / "a.tfrecord").exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="No such file or directory"), replacing_records(tmp_path / "none" / "a.tfrecord"):
        pass
