"""Is this Redis fit to keep jobs? Asked once when the store is opened."""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.errors import ConfigError
from penstock.jobs.redis.link import explain

_OLDEST = (6, 2)


async def inspect(client: "Redis", where: str) -> tuple[bool, list[str]]:
    """Whether what it accepts survives its restart, and what its operator should know.

    Raises ConfigError for a server that is too old, Unavailable where there is none.
    """
    try:
        info = await client.info("everything")
    except (RedisError, OSError) as exc:
        raise explain(exc, where) from exc
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise ConfigError(f"Redis at {where} is version {version}; jobs need 6.2 or newer")
    warnings = []
    durable = bool(info.get("aof_enabled"))
    if not durable:
        warnings.append(
            f"Redis at {where} has appendonly off: jobs that it accepted are lost when it is restarted; "
            "set appendonly to yes"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"Redis at {where} has maxmemory-policy {policy}: it may throw jobs away when its memory is full; "
            "set it to noeviction"
        )
    return durable, warnings
