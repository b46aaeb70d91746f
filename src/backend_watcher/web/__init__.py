"""The face over HTTP, of the watcher that runs."""
