"""Listeners: what the rooms tell an Observer, as figures for those who watch the watcher."""
