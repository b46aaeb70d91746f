"""`python -m backend_watcher` is `watcher`."""

import sys

from backend_watcher.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
