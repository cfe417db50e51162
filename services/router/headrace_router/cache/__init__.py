"""The response cache: equal requests are executed once.

`plane` puts it in front of a `ports.DataPlane`; `doorway` says what its requests count against;
`memory` and `redis_store` keep answers; what is equal, who follows whom and what stays is decided in
`core`: `response_key`, `flights`, `bounded_lru`, `stored_answers`.
"""

from __future__ import annotations

from headrace_router.cache.opening import open_store
from headrace_router.cache.plane import CachedPlane

__all__ = ["CachedPlane", "open_store"]
