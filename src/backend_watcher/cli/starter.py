"""What happens after PostgreSQL has committed. Start it with `watcher run`."""

from backend_watcher import Change, Watcher

watcher = Watcher("shop")


@watcher.on("products")
async def show(change: Change) -> None:
    """Called for each change, in commit order for each row; after a crash perhaps again, with the same event_id."""
    print(change.operation, change.key, change.event_id)
