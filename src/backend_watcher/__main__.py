"""`python -m backend_watcher` is `watcher`."""

import sys

from backend_watcher.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
