"""The config's health checks. Podman would have systemd's timers do it over D-Bus, which is not there."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from tinboot.formats.config_container import Healthcheck
from tinboot.guest import podman

#: Milliseconds, and tries, where the config does not say (podman-run(1), --health-interval and the like).
_INTERVAL, _TIMEOUT, _RETRIES, _START_PERIOD = 30_000, 30_000, 3, 0
_STARTING_INTERVAL = 2_000  # until the first success: readiness should not wait for an interval


class Health:
    """One container's. `look` is called often, and never waits."""

    def __init__(self, name: str, check: Healthcheck) -> None:
        self._words = command(name, check)
        self._interval = check.interval or _INTERVAL
        self._timeout = check.timeout or _TIMEOUT
        self._retries = check.retries or _RETRIES
        self._start_period = check.start_period or _START_PERIOD
        self._process: subprocess.Popen[bytes] | None = None
        self.restarted(0)

    def restarted(self, now_ms: int) -> None:
        """The container has just begun, or ended: nothing is known of it."""
        self._end()
        self._began = self._next = now_ms
        self._failures = 0
        self._passed = False

    def look(self, now_ms: int) -> tuple[str, str]:
        """State and reason of a container that runs."""
        if self._words:
            self._advance(now_ms)
        if self._passed or not self._words:
            if self._failures >= self._retries:
                return "failed", f"its health check failed {self._failures} times"
            return "running", ""
        if self._failures >= self._retries:
            return "failed", f"its health check failed {self._failures} times"
        return "starting", "its health check has not passed yet"

    def _advance(self, now_ms: int) -> None:
        if self._process is None:
            if now_ms >= self._next:
                self._asked = now_ms
                null = subprocess.DEVNULL
                self._process = subprocess.Popen(
                    self._words, stdin=null, stdout=null, stderr=null, env=podman.ENVIRONMENT
                )
            return
        status = self._process.poll()
        if status is None and now_ms - self._asked < self._timeout:
            return
        self._end()
        if status == 0:
            self._failures, self._passed = 0, True
        elif self._passed or now_ms - self._began >= self._start_period:
            self._failures += 1
        self._next = now_ms + (self._interval if self._passed else min(self._interval, _STARTING_INTERVAL))

    def _end(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None


def command(name: str, check: Healthcheck) -> Sequence[str]:
    """`test` as container engines take it (Docker's HEALTHCHECK); nothing for NONE."""
    kind, *words = check.test
    if kind == "NONE":
        return ()
    inside = ["/bin/sh", "-c", words[0]] if kind == "CMD-SHELL" else words
    return (podman.PODMAN, "exec", name, *inside)
