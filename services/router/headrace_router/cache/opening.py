"""From configuration to a store."""

from __future__ import annotations

from headrace_common.clock import Clock
from headrace_common.config import RouterConfig
from headrace_common.errors import InvalidArgument
from headrace_router.cache.memory import MemoryStore
from headrace_router.cache.store import AnswerStore


def open_store(config: RouterConfig, clock: Clock) -> AnswerStore:
    """The store that the configuration names, not started.

    Raises:
        InvalidArgument: cache_url cannot be understood. It may hold a password and is not repeated.
    """
    if not config.cache_url:
        return MemoryStore(config.cache_bytes, config.cache_entry_bytes, clock)
    # The package is an extra; `headrace_common.extras` has seen to it where it is needed.
    from headrace_router.cache.redis_store import RedisStore

    try:
        return RedisStore(config.cache_url, config.cache_prefix, config.cache_timeout_s, config.cache_entry_bytes)
    except ValueError:
        raise InvalidArgument(
            "router.cache_url: expected redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH"
        ) from None
