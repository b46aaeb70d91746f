"""What is printed by several threads: whole lines, as soon as they end."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys, threading
from backend_watcher.service.output import print_line_by_line

print_line_by_line()
gate = threading.Barrier(4)


def talk(name):
    gate.wait()
    for number in range(2000):
        print(f"{name} {number}")


threads = [threading.Thread(target=talk, args=[name]) for name in "abcd"]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("all")
sys.stdin.read(1)
"""


def test_lines_of_several_threads_stay_whole_and_leave_at_once_whatever_is_set() -> None:
    for unbuffered in ("", "1"):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = []
        # The process does not end before it is told to: what is here left at once.
        while not lines or lines[-1] != "all\n":
            lines.append(process.stdout.readline())
        process.communicate("x")
        assert process.returncode == 0
        assert sorted(lines[:-1]) == sorted(f"{name} {number}\n" for name in "abcd" for number in range(2000))
