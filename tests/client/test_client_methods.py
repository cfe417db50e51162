"""The table of calls agrees with the protos."""

import pytest
from google.protobuf import descriptor_pool

from headrace.client import methods
from headrace.client.methods import Method
from headrace.control.v1 import process_pb2  # noqa: F401 - puts its services into the pool
from headrace.oip import inference_pb2
from headrace.v1 import mesh_pb2, models_pb2, tenants_pb2, usage_pb2  # noqa: F401

TABLE = {name: value for name, value in vars(methods).items() if isinstance(value, Method)}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_call_is_in_its_service(name: str) -> None:
    method = TABLE[name]
    service_name, _, call = method.path.removeprefix("/").partition("/")
    if service_name.startswith("inference."):
        service = inference_pb2.DESCRIPTOR.services_by_name[service_name.partition(".")[2]]
    else:
        service = descriptor_pool.Default().FindServiceByName(service_name)
    found = service.methods_by_name[call]
    assert found.input_type is method.request.DESCRIPTOR
    assert found.output_type is method.response.DESCRIPTOR
