"""Counts what our own code does: calls, calls into C, bytecodes, tasks. A busy machine changes none of it."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

_OURS = ("headrace_router", "headrace_common")


@dataclass(frozen=True, slots=True)
class Operations:
    """Per request.

    Attributes:
        by_function: (function, calls of it and of C functions from it), most first.
    """

    calls: float
    builtins: float
    bytecodes: float
    by_function: list[tuple[str, float]]


class Calls:
    """What a profile function saw of our code."""

    def __init__(self) -> None:
        self.python: Counter[CodeType] = Counter()
        self.into_c: Counter[CodeType] = Counter()

    def per(self, requests: int, bytecodes: int = 0) -> Operations:
        both = self.python + self.into_c
        by_function = [(_name(code), count / requests) for code, count in both.most_common()]
        return Operations(
            self.python.total() / requests, self.into_c.total() / requests, bytecodes / requests, by_function
        )


@contextmanager
def counted() -> Iterator[Calls]:
    """Counts calls in this thread. Another profile function gets its place back."""
    calls = Calls()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call":
            if _is_ours(code):
                calls.python[code] += 1
        elif event == "c_call" and _is_ours(code):
            calls.into_c[code] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def count(function: Callable[[], Any], requests: int = 1) -> Operations:
    """Operations of one call of a function that does not wait, shared by so many requests. It is called twice."""
    with counted() as calls:
        function()
    return calls.per(requests, _bytecodes(function))


@contextmanager
def counted_tasks() -> Iterator[Counter[str]]:
    """Tasks that are made of coroutines of our code in the running loop, by the coroutine's name."""
    loop = asyncio.get_running_loop()
    made: Counter[str] = Counter()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        code = getattr(coroutine, "cr_code", None)
        if code is not None and _is_ours(code):
            made[code.co_qualname] += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    before = loop.get_task_factory()
    loop.set_task_factory(make)
    try:
        yield made
    finally:
        loop.set_task_factory(before)


def _bytecodes(function: Callable[[], Any]) -> int:
    executed = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal executed
        if event == "call":
            if not _is_ours(frame.f_code):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            executed += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return executed


def _is_ours(code: CodeType) -> bool:
    return any(part in code.co_filename for part in _OURS)


def _name(code: CodeType) -> str:
    module = code.co_filename.rpartition("/")[2].removesuffix(".py")
    return f"{module}.{code.co_qualname}"
