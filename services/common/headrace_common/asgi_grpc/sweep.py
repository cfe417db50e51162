"""Finding out that clients have gone, or will not have sent their request in time.

Once a request has been read, the server tells of a lost client only when it is asked. Asking costs an
await, so calls shorter than a period are never asked about, and longer ones once per period.
"""

from __future__ import annotations

import asyncio
import time

from headrace_common.asgi_grpc.call import Call

# A sweep over very many calls takes at most this share of the loop's time.
_MAX_SHARE = 0.05


class DisconnectSweep:
    """Watches the calls that were given to `add` until they are given to `discard`."""

    def __init__(self, period_s: float, arrival_timeout_s: float) -> None:
        self._period_s = period_s
        self._arrival_timeout_s = arrival_timeout_s
        self._calls: set[Call] = set()
        self.add = self._calls.add
        self.discard = self._calls.discard

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        pause_s = self._period_s
        while True:
            await asyncio.sleep(pause_s)
            began = time.monotonic()
            await self._sweep()
            pause_s = max(self._period_s, (time.monotonic() - began) / _MAX_SHARE)

    async def _sweep(self) -> None:
        for call in tuple(self._calls):
            if not call.swept:  # It began in the period that just ended.
                call.swept = True
                call.read_by = time.monotonic() + self._arrival_timeout_s
            elif not call.half_closed:
                call.stop_reading_if_late()
            elif not call.gone and call in self._calls:
                await self._ask(call)

    async def _ask(self, call: Call) -> None:
        try:
            async with asyncio.timeout(self._period_s):
                await call.poll()
        except TimeoutError:
            return  # A server that waits for the disconnect: nothing is known, so it is there.
