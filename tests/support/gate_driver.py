"""Runs the real gate in a process of its own, with the places and the time that a test gives it.

    python gate_driver.py FOLDER NOW DAEMON CALL < job > outcome

FOLDER has what the verified root has: gpu/, nodes/, devices, the daemon and where it leaves its pid.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from tinboot.formats import gpugate
from tinboot.guest import gpu_gate, nv_verifier
from tinboot.guest.gpu_devices import Daemon


def main() -> None:
    folder, now = Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2])
    daemon, call = map(float, sys.argv[3:])
    second = nv_verifier.Place(folder / "nv-verifier", (folder / "python").read_text())
    places = gpu_gate.Places(
        folder / "gpu",
        second,
        Daemon(str(folder / "nvidia-persistenced"), pid_file=folder / "daemon.pid"),
        folder / "devices",
        folder / "nodes",
    )
    deadlines = gpu_gate.Deadlines(daemon, 0, call, 0)
    told = gpu_gate.outcome(sys.stdin.buffer.read(), places, deadlines, now)
    sys.stdout.buffer.write(gpugate.pack_outcome(told))


if __name__ == "__main__":
    main()
