"""Peers that take a tensor's bytes as they are, by HTTP/1.1 POST, and answer the same way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.systems.base import Row
from benchmarks.systems.open_inference import post
from benchmarks.workloads import Workload

HEADERS = {"content-type": "application/octet-stream"}


def raw_client(url: str, workload: Workload) -> Callable[[Row], NDArray[np.float32]]:
    """Raises urllib.error.HTTPError for a status that is not 2xx."""

    def infer(row: Row) -> NDArray[np.float32]:
        answer = post(url, row.tobytes(), HEADERS)
        return np.frombuffer(answer, np.float32).reshape(1, *workload.output_shape)

    return infer
