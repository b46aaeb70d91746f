"""The watcher killed, again and again; afterwards nothing is lost and nothing is wrong."""
