"""Hooks that a test adds to the initrd, to read what a boot alone does not."""

from __future__ import annotations

#: Reads every mapped device to its end. A short read is an error: it may hide a bad block (facts of the
#: initrd: a large read over one returns what came before it).
READ_EVERYTHING = """
import os

def run(state):
    for name in sorted(os.listdir("/dev/mapper")):
        if name == "control":
            continue
        fd, total = os.open("/dev/mapper/" + name, os.O_RDONLY), 0
        while data := os.read(fd, 1 << 20):
            total += len(data)
        print("read", name, total, flush=True)
    return {}
"""

#: Leaves a process behind that outlives the hand-over and then reads the root's last block from the disk
#: again and again, past the page cache. Opened before the fork: nothing waits for the child.
LATE_READER = """
import os, time

def run(state):
    fd = os.open("/dev/mapper/root", os.O_RDONLY)
    last = os.lseek(fd, 0, os.SEEK_END) - 4096
    if os.fork():
        return {}
    os.setsid()
    began = time.monotonic()
    while time.monotonic() - began < 150:
        os.posix_fadvise(fd, last, 4096, os.POSIX_FADV_DONTNEED)
        assert len(os.pread(fd, 4096, last)) == 4096
        time.sleep(0.3)
    os._exit(0)
"""
