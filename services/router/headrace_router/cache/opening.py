"""From configuration to a store."""

from __future__ import annotations

from headrace_common.clock import Clock
from headrace_common.config import RouterConfig
from headrace_common.errors import FailedPrecondition
from headrace_router.cache.memory import MemoryStore
from headrace_router.cache.store import AnswerStore


def open_store(config: RouterConfig, clock: Clock) -> AnswerStore:
    """The store that the configuration names, not started.

    Raises:
        FailedPrecondition: it names a Redis, and the package for it is not installed.
    """
    if not config.cache_url:
        return MemoryStore(config.cache_bytes, config.cache_entry_bytes, clock)
    try:
        from headrace_router.cache.redis_store import RedisStore
    except ImportError as missing:
        raise FailedPrecondition(
            f"router.cache_url names a Redis, and the package {missing.name!r} is not installed; "
            "pip install 'headrace[redis]', or leave cache_url empty to keep answers in memory"
        ) from None
    return RedisStore(config.cache_url, config.cache_prefix, config.cache_timeout_s, config.cache_entry_bytes)
