"""A host for grpcio servicers inside any ASGI server that has HTTP/2 trailers."""

from headrace_common.asgi_grpc.app import BytesHandler, GrpcAsgiApp
from headrace_common.asgi_grpc.call import Call, ClientGone
from headrace_common.asgi_grpc.exchange import Exchange, OpenExchange
from headrace_common.asgi_grpc.lifespan import serve_lifespan

__all__ = ["BytesHandler", "Call", "ClientGone", "Exchange", "GrpcAsgiApp", "OpenExchange", "serve_lifespan"]
