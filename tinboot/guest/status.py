"""The status line: what the initrd verified and that the root is up, for a person and for the harness.

tinboot-up {"boot":{...},"profile":"release","uptime_ms":9120}
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from tinboot.guest.console import say

#: Written by the initrd's last hook and sealed by a read-only remount (docs/boot.md).
BOOT = Path("/run/tinboot/boot.json")

#: The image's own word for what it is: part of the root, so of its hash.
PROFILE = Path("/usr/lib/tinboot/profile")

DEBUG_BANNER = "tinboot DEBUG IMAGE: root login on this console without a password. Trust nothing here."


def status_line(boot: bytes, profile: str, uptime_ms: int) -> str:
    """`boot`: the JSON that the initrd sealed. Raises ValueError if it is not JSON."""
    fields = {"boot": json.loads(boot), "profile": profile, "uptime_ms": uptime_ms}
    return "tinboot-up " + json.dumps(fields, separators=(",", ":"), sort_keys=True)


def main() -> None:
    """Prints the line; in the debug image the banner before it."""
    profile = PROFILE.read_text("ascii").strip()
    if profile != "release":
        say(DEBUG_BANNER)
    uptime_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    say(status_line(BOOT.read_bytes(), profile, uptime_ms))


if __name__ == "__main__":
    main()
