"""What is known of a GPU, and which of a machine's a process uses. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """
    Attributes:
        capability: 86 for compute capability 8.6.
        memory_bytes: in all.
        uuid: as the driver has it, "GPU-..."; "": not told.
    """

    name: str
    capability: int
    memory_bytes: int = 0
    uuid: str = ""

    @property
    def target(self) -> str:
        """As plans and instance shapes name it: "sm_86"."""
        return target_name(self.capability)


def target_name(capability: int) -> str:
    """75 to "sm_75"."""
    return f"sm_{capability}"


def capability_of(major: int, minor: int) -> int:
    """As CUDA tells it, to the number in the name."""
    return major * 10 + minor


def visible_gpus(gpus: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA shows to this process, in its order; it uses the first.

    Args:
        gpus: all, in the order of the PCI bus.
        visible: CUDA_VISIBLE_DEVICES: indices or UUIDs, which may be cut short, separated by commas; None: not set.
            What follows the first that is none is not seen (CUDA C++ Programming Guide, "CUDA Environment Variables").
    """
    if visible is None:
        return tuple(gpus)
    chosen: list[Gpu] = []
    for word in visible.split(","):
        gpu = _named(gpus, word.strip())
        if gpu is None or gpu in chosen:
            break
        chosen.append(gpu)
    return tuple(chosen)


def _named(gpus: Sequence[Gpu], word: str) -> Gpu | None:
    if word.isascii() and word.isdigit():
        return gpus[int(word)] if int(word) < len(gpus) else None
    found = [gpu for gpu in gpus if word and gpu.uuid.startswith(word)]
    return found[0] if len(found) == 1 else None
