"""A deployed model's optimisation through the API: what is found for it, and what is asked of it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from headrace.v1 import models_pb2 as pb
from headrace_autoscaler.core.jobs import Variant, VariantTiming
from headrace_autoscaler.jobs.work import Found, Work

OnnxModel = Callable[..., bytes]
ROWS = np.zeros((40, 3), np.float32)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def measured(name: str, verdict: str = "fits", **rest: Any) -> Variant:
    shown = {"share": 0.99, "lower": 0.98, "upper": 0.995, "samples": 30, "cpu_s_per_row": 0.001, **rest}
    timings = (VariantTiming(1, 0.002, 500.0),)
    return Variant(name, "how", verdict, "", 100, "agreement", timings=timings, engines=("onnxruntime",), **shown)


def finds(content: bytes, chosen: str = "int8", reason: str = "int8 is the cheapest") -> Callable[[Work], Found]:
    """An original, a variant with this content, and one that is out of the question."""

    def found(work: Work) -> Found:
        file = work.folder / "int8.onnx"
        file.write_bytes(content)
        broken = measured("int4", "disqualified", samples=0)
        variants = ((measured("original"), None), (measured("int8"), file), (broken, None))
        return Found(variants, chosen, reason)

    return found


class Optimized:
    """A model that was deployed, and what is asked of its optimisation."""

    def __init__(self, api: Any) -> None:
        self.api = api

    async def start(self, name: str = "m", samples: bytes | None = None, **asked: Any) -> pb.OptimizeJob:
        artifact = await self.api.upload({"samples.npz": npz(x=ROWS) if samples is None else samples})
        request = pb.OptimizeModelRequest(name=name, samples=artifact, optimization=pb.Optimization(**asked))
        return (await self.api.models.OptimizeModel(request)).job

    async def listed(self, name: str = "m") -> pb.ListVariantsResponse:
        return await self.api.models.ListVariants(pb.ListVariantsRequest(name=name))

    async def use(self, variant: str, name: str = "m") -> pb.Model:
        return (await self.api.models.UseVariant(pb.UseVariantRequest(name=name, variant=variant))).model

    async def until(self, state: int, name: str = "m") -> pb.ListVariantsResponse:
        """Lets the jobs go on until this one is in that state."""
        async with asyncio.timeout(10):
            while True:
                listed = await self.listed(name)
                if listed.job.state == state:
                    return listed
                await self.api.jobs.tick()

    async def loading(self) -> Any:
        """An optimisation whose variant is being loaded: its revision. The load waits for the fleet's gate."""
        async with asyncio.timeout(10):
            await self.api.fleet.verifying.acquire()
            self.api.fleet.gate.clear()
            self.api.optimizer.gate.set()
            await self.start()
            await self.api.fleet.verifying.acquire()
        return self.api.catalogue.model("m").revisions[-1]

    async def begun(self) -> None:
        async with asyncio.timeout(10):
            await self.api.optimizer.begun.acquire()


def current(model: pb.Model) -> pb.ModelVersion:
    return next(version for version in reversed(model.versions) if version.state == pb.VERSION_STATE_SERVING)
