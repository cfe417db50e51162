"""Two tenants of weights 3 and 1, both asking for more than there is of one shared model."""

from __future__ import annotations

import threading
import time

from benchmarks import h2load
from benchmarks.plan import Settings
from benchmarks.records import Special
from benchmarks.special.engine import MODEL, body, slow_engine
from benchmarks.systems.headrace import limited, outcomes
from benchmarks.systems.open_inference import GRPC_HEADERS, PATH

WEIGHTS = {"heavy": 3.0, "light": 1.0}
_IN_FLIGHT = 128
_LEEWAY_S = 2.0


def tenants(settings: Settings, round_: int) -> Special:
    """`ratio` is what the heavy tenant was served over what the light one was, by the mesh's own count."""
    with slow_engine() as (mesh, client):
        for name, weight in WEIGHTS.items():
            client.set_tenant(limited(name, weight))
        lasts_s = settings.warm_up_s + settings.seconds + _LEEWAY_S
        floods = [
            threading.Thread(
                target=h2load.load,
                args=(
                    mesh.url + PATH,
                    body(),
                    GRPC_HEADERS | {"x-headrace-tenant": name},
                    True,
                    _IN_FLIGHT,
                    lasts_s,
                ),
            )
            for name in WEIGHTS
        ]
        for flood in floods:
            flood.start()
        time.sleep(settings.warm_up_s)
        before = mesh.metrics_text()
        time.sleep(settings.seconds)
        after = mesh.metrics_text()
        for flood in floods:
            flood.join()
    served = {name: outcomes(after, MODEL, name).ok - outcomes(before, MODEL, name).ok for name in WEIGHTS}
    ratio = served["heavy"] / served["light"] if served["light"] else -1.0
    return Special("tenants", round_, {**served, "ratio": ratio})
