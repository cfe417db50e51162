"""ingress.c as Python calls it.

Envoy loads the same file as an HTTP filter; both have one instance of it, so what the filter queues is
what `take` returns. Calls hold the interpreter's lock.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).with_name("ingress.so")
"""Made when the package is built."""

Place = tuple[int, int, int]
Header = bytes | None
Taken = tuple[int, int, float, Header, Header, Header, bytes | Place, bytes, bytes, tuple[int, ...]]
"""A request: (stream, `Kind`, arrived in monotonic seconds, tenant, grpc-timeout, traceparent, body, header, id,
spans). A large body is a place in memory, for `given`. Of the three headers, None is one that did not come. The last
three are those of `oip.header.split`; the header is empty where the message is an unusual one."""


class Kind(IntEnum):
    """WHOLE: the body is one message. IRREGULAR: it is not, and still has gRPC's prefix. LATE: it did not come in
    time. FULL: there was no room for it."""

    WHOLE = 0
    IRREGULAR = 1
    LATE = 2
    FULL = 3


class IngressLibrary:
    """See ingress.c for what each does. Raises OSError where the file cannot be loaded."""

    def __init__(self, path: Path = LIBRARY) -> None:
        library = ctypes.PyDLL(str(path))
        self._open = _function(library.headrace_open, ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_double)
        self._fail = _function(
            library.headrace_fail,
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_char_p,
            ctypes.c_size_t,
        )
        self.take = _function(library.headrace_take, ctypes.py_object, ctypes.c_long)
        self.waiting = _function(library.headrace_waiting, ctypes.c_int)
        self.reply = _function(library.headrace_reply, ctypes.c_long, ctypes.py_object)
        self.is_gone = _function(library.headrace_is_gone, ctypes.c_int, ctypes.c_void_p)
        self.give_up = _function(library.headrace_give_up, ctypes.c_long, ctypes.c_double)
        self.split = _function(library.headrace_split, ctypes.py_object, ctypes.py_object)
        self._free = _function(library.headrace_free, None, ctypes.c_void_p)
        self._array_of = lru_cache(maxsize=64)(self._make_array)

    def open(self, max_message_bytes: int, max_held_bytes: int, arrival_timeout_s: float) -> int:
        """The file descriptor that is readable when there is something to take.

        Args:
            max_message_bytes: of one request.
            max_held_bytes: of all that have begun to come and have not been taken.
            arrival_timeout_s: a request that has not arrived whole by then is late.
        """
        descriptor: int = self._open(max_message_bytes, max_held_bytes, arrival_timeout_s)
        if descriptor < 0:
            raise OSError("no file descriptor is left for the ingress; raise the limit of open files")
        return descriptor

    def given(self, place: Place) -> memoryview:
        """A large body without a copy. Its memory is freed when the last view of it is gone."""
        address, start, end = place
        return memoryview(self._array_of(end).from_address(address)).cast("B")[start:]

    def _make_array(self, size: int) -> Any:
        free = self._free

        def give_back(array: Any) -> None:
            free(ctypes.addressof(array))

        return type("_Body", (ctypes.c_char * size,), {"__del__": give_back})

    def fail(self, stream: int, code: int, message: bytes, details: bytes) -> None:
        """Ends a stream with a status; both texts are as headers want them."""
        self._fail(stream, code, message, len(message), details, len(details))


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype = result
    function.argtypes = arguments
    return function
