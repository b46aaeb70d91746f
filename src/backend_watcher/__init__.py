"""Backend Watcher keeps caches, replicas, figures and services in step with PostgreSQL."""
