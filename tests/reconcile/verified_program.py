"""Caches: JSON, hashes, a projection behind a mask and a predicate, keys of text, entries that expire."""

import os

from backend_watcher import Change, Watcher
from backend_watcher.sinks import RedisCache

url = os.environ.get("FAULTS_REDIS", "redis://127.0.0.1:1/0")
watcher = Watcher("faults")
watcher.to(RedisCache("i:{id}", url=url), table="items", name="plain")
watcher.to(RedisCache("h:{id}", url=url, format="hash"), table="items", name="hashes")
watcher.to(RedisCache("e:{id}", url=url, expire_seconds=3600), table="items", name="expiring")
watcher.to(RedisCache("w:{word}", url=url), table="words", name="words")
watcher.to(RedisCache("m:{mail}", url=url), table="mails", name="mails")


def mask(change: Change) -> Change:
    """Never let the secret out."""
    return change.replace(
        new={**change.new, "secret": "***"} if change.new is not None else None,
        old={**change.old, "secret": "***"} if change.old is not None else None,
    )


def even(change: Change) -> bool:
    """Want every other row, and every truncate."""
    return change.operation == "truncate" or change.row["id"] % 2 == 0


projection = RedisCache("p:{id}", url=url, columns=["id", "secret", "kept"])
watcher.to(projection, table="items", name="projected", transform=mask, when=even)


@watcher.on("items")
async def told(change: Change) -> None:
    """Do nothing: a function cannot be read back."""
