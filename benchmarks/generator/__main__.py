"""`python -m benchmarks.generator FILE`: runs the order in a JSON file and prints what came of it as JSON.

A process of its own, so that nothing else of the benchmarks runs beside the load.
"""

from __future__ import annotations

import gc
import json
import math
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.generator import http1, http2
from benchmarks.generator.loop import Loop
from benchmarks.generator.pools import LoneLinks, SharedLinks
from benchmarks.generator.schedule import Plan, summarise

_HTTP2_CONNECTIONS = 8
_HTTP1_CONNECTIONS = 16


def main(order_path: str) -> None:
    order = json.loads(Path(order_path).read_text())
    plan = Plan(order["rate"], order["warm_up_s"], order["seconds"])
    loop = Loop(plan, _links(order, Path(order["body"]).read_bytes()))
    gc.disable()
    loop.run()
    outcome = summarise(plan, loop.done, loop.sent_at, order.get("limit_s") or math.inf)
    print(json.dumps(outcome.as_dict()))


def _links(order: dict[str, Any], body: bytes) -> SharedLinks | LoneLinks:
    parts = urlsplit(order["url"])
    address = parts.hostname or "127.0.0.1", parts.port or 80
    headers = order["headers"]
    if order["http2"]:
        pseudo = {":method": "POST", ":scheme": "http", ":authority": parts.netloc, ":path": parts.path}
        return SharedLinks(lambda: http2.Connection({**pseudo, **headers}, body), address, _HTTP2_CONNECTIONS)
    return LoneLinks(lambda: http1.Connection(parts.path, parts.netloc, headers, body), address, _HTTP1_CONNECTIONS)


if __name__ == "__main__":
    main(sys.argv[1])
