"""The files for TensorFlow Serving say what its messages can hold."""

from __future__ import annotations

import pytest
import source_tree
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

SERVING = source_tree.ROOT / "export" / "tf_serving"
FIELD = descriptor_pb2.FieldDescriptorProto


def test_the_model_list_is_a_model_server_config():
    from tensorflow_serving.config import model_server_config_pb2

    config = text_format.Parse((SERVING / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("asr", "/models/asr", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 2
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


def _message(name, fields, imports=()):
    """A message class of these fields, (name, number, type, label, type's name) each.

    The package tensorflow-serving-api leaves out the messages of batching and monitoring.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="serving_test", syntax="proto3")
    file.dependency.extend(imports)
    for nested, members in fields.items():
        message = file.message_type.add(name=nested)
        for field, number, kind, label, type_name in members:
            message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"serving_test.{name}"))


def test_batching_parameters():
    one, many, wrapped = FIELD.LABEL_OPTIONAL, FIELD.LABEL_REPEATED, ".google.protobuf.Int64Value"
    fields = [
        ("max_batch_size", 1, FIELD.TYPE_MESSAGE, one, wrapped),
        ("batch_timeout_micros", 2, FIELD.TYPE_MESSAGE, one, wrapped),
        ("max_enqueued_batches", 3, FIELD.TYPE_MESSAGE, one, wrapped),
        ("num_batch_threads", 4, FIELD.TYPE_MESSAGE, one, wrapped),
        ("allowed_batch_sizes", 6, FIELD.TYPE_INT64, many, None),
        ("pad_variable_length_inputs", 7, FIELD.TYPE_BOOL, one, None),
    ]
    kind = _message("BatchingParameters", {"BatchingParameters": fields}, ["google/protobuf/wrappers.proto"])
    parameters = text_format.Parse((SERVING / "batching.config").read_text(), kind())
    assert parameters.max_batch_size.value == 32
    assert parameters.batch_timeout_micros.value == 1000
    assert parameters.max_enqueued_batches.value > 0
    assert parameters.num_batch_threads.value > 0


def test_monitoring():
    one = FIELD.LABEL_OPTIONAL
    prometheus = [("enable", 1, FIELD.TYPE_BOOL, one, None), ("path", 2, FIELD.TYPE_STRING, one, None)]
    config = [("prometheus_config", 1, FIELD.TYPE_MESSAGE, one, ".serving_test.PrometheusConfig")]
    kind = _message("MonitoringConfig", {"MonitoringConfig": config, "PrometheusConfig": prometheus})
    monitoring = text_format.Parse((SERVING / "monitoring.config").read_text(), kind())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


@pytest.mark.parametrize("name", ["serving", "serving-batched"])
def test_compose_names_files_that_are_there(name):
    service = yaml.safe_load((SERVING / "docker-compose.yml").read_text())["services"][name]
    files = [flag.partition("=")[2] for flag in service["command"] if "=/config/" in flag]
    assert len(files) == (3 if name == "serving-batched" else 2)
    for file in files:
        assert (SERVING / file.removeprefix("/config/")).is_file()
    assert any(volume.endswith(":/models/asr:ro") for volume in service["volumes"])
    assert ("--enable_batching=true" in service["command"]) == (name == "serving-batched")


def test_the_readme_names_every_file():
    text = (SERVING / "README.md").read_text()
    for path in SERVING.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in text
