"""What the hooks stand on: the runner (PID 1), the kernel's calls, disks, dm-verity, the console.

Runs in the initrd's Python with the few standard-library modules that tests/hooks/closure.py lists:
no dataclasses, subprocess, pathlib, logging or threading here.
"""
