"""ModelStreamInfer: many requests on one stream, answered as they complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from headrace.oip import inference_pb2 as pb
from headrace_common.grpc_server import log_failure
from headrace_router.oip.decode import asks_for_final
from headrace_router.oip.parameters import IS_FINAL

MAX_IN_FLIGHT = 256
"""Requests of one stream in hand; past it the stream is not read, which holds the client back."""

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"

Infer = Callable[[pb.ModelInferRequest], Awaitable[pb.ModelInferResponse]]


class InferStream:
    """One stream. Answers carry the id of their request; their order is that of completion.

    A request that fails is answered with `error_message`, and the stream goes on.
    """

    def __init__(self, infer: Infer, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self._infer = infer
        self._permits = asyncio.Semaphore(max_in_flight)
        # Bounded by the permits; None: all requests are answered.
        self._answers: asyncio.Queue[pb.ModelStreamInferResponse | None] = asyncio.Queue()

    async def answers(
        self, requests: AsyncIterator[pb.ModelInferRequest]
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Ends when `requests` has ended and all are answered. Closing it withdraws what is in hand."""
        reader = asyncio.create_task(self._read(requests))
        try:
            while (answer := await self._answers.get()) is not None:
                yield answer
                # Only now: a client that does not read its answers is not read from either.
                self._permits.release()
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.ModelInferRequest]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                await self._permits.acquire()
                async for request in requests:
                    group.create_task(self._answer(request))
                    await self._permits.acquire()
        except ExceptionGroup as errors:
            # Answering never fails, so this is what ended the reading.
            raise errors.exceptions[0] from None
        finally:
            self._answers.put_nowait(None)

    async def _answer(self, request: pb.ModelInferRequest) -> None:
        # Also on an error the id says which request it was.
        answer = pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(id=request.id))
        try:
            answer.infer_response.CopyFrom(await self._infer(request))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the rest
            answer.error_message = log_failure(METHOD, error).message
        if asks_for_final(request):
            answer.infer_response.parameters[IS_FINAL].bool_param = True
        self._answers.put_nowait(answer)
