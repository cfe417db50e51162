"""Requests on their way into a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Generic, TypeVar

from headrace.client.inference import StreamInput, stream_request
from headrace.oip import inference_pb2

Item = TypeVar("Item")


class Outgoing(Generic[Item]):
    """An iterator of requests. gRPC hides why one failed; this keeps it.

    Attributes:
        failure: what the source raised, if it did.
    """

    def __init__(self, source: Iterable[Item]) -> None:
        self._source = iter(source)
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self._source)
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


def stream_requests(
    name: str, inputs: Iterable[StreamInput], version: str
) -> Iterator[inference_pb2.ModelInferRequest]:
    """A request per input; its id is the input's position."""
    for index, item in enumerate(inputs):
        yield stream_request(name, version, index, item)


class AsyncOutgoing(Generic[Item]):
    """`Outgoing` for the asynchronous client."""

    def __init__(self, source: AsyncIterator[Item]) -> None:
        self._source = source
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


async def stream_requests_async(
    name: str, inputs: Iterable[StreamInput] | AsyncIterable[StreamInput], version: str
) -> AsyncIterator[inference_pb2.ModelInferRequest]:
    """`stream_requests` for the asynchronous client."""
    index = 0
    async for item in _each(inputs):
        yield stream_request(name, version, index, item)
        index += 1


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def in_thread(items: Iterator[Item]) -> AsyncIterator[Item]:
    """Takes each item in a thread, since reading files would hold up the loop."""
    while (item := await asyncio.to_thread(next, items, None)) is not None:
        yield item
