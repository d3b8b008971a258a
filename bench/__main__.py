"""`make bench`: every measurement, a table each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

for name in (
    "mounted.py",
    "build.py",
    "wrap.py",
    "measure.py",
    "verify.py",
    "gpus.py",
    "gate.py",
    "ready.py",
    "client.py",
    "proxy.py",
    "flood.py",
):
    subprocess.run([sys.executable, Path(__file__).with_name(name), *sys.argv[1:]], check=True)
