"""`make bench`."""

from __future__ import annotations

from benchmarks import cold_start, throughput
from benchmarks.mesh import running_mesh


def main() -> None:
    with running_mesh() as url:
        cold_start.measure(url)
        throughput.measure(url)


if __name__ == "__main__":
    main()
