"""What a runner and whoever starts it agree on about limits."""

from __future__ import annotations

OVER_MEMORY_STATUS = 137
"""Exit status of a runner that outgrew its memory too fast to drain: a shell's for SIGKILL, as the kernel's own
out-of-memory killer would have left."""
ENGINE_LOST_STATUS = 76
"""Exit status of a runner whose engine can execute nothing more, such as after a fault on the GPU."""
