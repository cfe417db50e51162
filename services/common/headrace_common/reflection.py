"""gRPC server reflection over the default descriptor pool and the one of the Open Inference messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

from headrace.oip import inference_pb2  # noqa: F401 - fills POOL
from headrace.oip._pool import POOL
from headrace_common.grpc_server import ServicerHost


class BothPools:
    """Looks a name up in the Open Inference pool, then in the default one.

    Only what reflection asks for: the methods are `DescriptorPool`'s and raise KeyError as they do.
    """

    def __init__(self) -> None:
        self._pools = (POOL, descriptor_pool.Default())

    def FindFileByName(self, name: str) -> FileDescriptor:
        return self._first("FindFileByName", name)  # type: ignore[no-any-return]

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        return self._first("FindFileContainingSymbol", symbol)  # type: ignore[no-any-return]

    def FindMessageTypeByName(self, name: str) -> Descriptor:
        return self._first("FindMessageTypeByName", name)  # type: ignore[no-any-return]

    def FindExtensionByNumber(self, message: Descriptor, number: int) -> FieldDescriptor:
        return self._owner(message).FindExtensionByNumber(message, number)  # type: ignore[no-any-return]

    def FindAllExtensions(self, message: Descriptor) -> list[FieldDescriptor]:
        return self._owner(message).FindAllExtensions(message)  # type: ignore[no-any-return]

    def _first(self, method: str, name: str) -> Any:
        for pool in self._pools:
            try:
                return getattr(pool, method)(name)
            except KeyError:
                continue
        raise KeyError(name)

    def _owner(self, message: Descriptor) -> Any:
        return message.file.pool


def add_reflection(server: ServicerHost, services: Iterable[str]) -> None:
    """Serves grpc.reflection.v1alpha for the services named, and itself.

    Args:
        server: where to.
        services: full names; their stubs must have been imported.
    """
    servicer = reflection_aio.ReflectionServicer([*services, reflection.SERVICE_NAME], pool=BothPools())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
