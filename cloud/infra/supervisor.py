"""Keeps a machine's processes alive: starts them in order, starts again what dies, ends them in reverse.

Invariants: one thread; a service that dies is started again with growing pauses (0.2 s to 10 s), which shrink back
once it has run for half a minute; its death and its return are logged once. When this process is killed, the kernel
ends the children.
"""

import contextlib
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from cloud.core.errors import CloudError, Refused
from cloud.infra.outage import OutageLog
from cloud.infra.process import spawn

_LOGGER: Final = logging.getLogger(__name__)
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_SETTLED_AFTER_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.5
_STOP_WITHIN_S: Final = 10.0
READY_FLAG: Final = "--ready-fd"


class Service(Protocol):
    """Something the supervisor keeps alive."""

    name: str

    def start(self) -> None:
        """Start it, and return once it runs."""
        ...

    def alive(self) -> bool:
        """Return whether it still runs."""
        ...

    def stop(self) -> None:
        """End it, and return once it has ended."""
        ...


class ProcessService:
    """A child process. One that ``announces`` is given ``--ready-fd N`` and writes there once it serves.

    So it is the child itself that is ready, not whoever else answers at its addresses.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        *,
        announces: bool = False,
        ready_within_s: float = 30.0,
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._announces = announces
        self._ready_within_s = ready_within_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process; one that announces itself has done so when this returns.

        Raises:
            Refused: it ended, or did not become ready in time.
        """
        if not self._announces:
            self._spawn(())
            return
        reading, writing = os.pipe()
        try:
            try:
                self._spawn((writing,))
            finally:
                os.close(writing)
            self._await(reading)
        finally:
            os.close(reading)

    def _spawn(self, descriptors: tuple[int, ...]) -> None:
        flags = [part for number in descriptors for part in (READY_FLAG, str(number))]
        self._process = spawn(
            [*self._command, *flags],
            environment=self._environment,
            death_signal=signal.SIGKILL,
            descriptors=descriptors,
        )

    def _await(self, reading: int) -> None:
        heard, _, _ = select.select([reading], [], [], self._ready_within_s)
        if heard and os.read(reading, 1):
            return
        assert self._process is not None
        if heard:  # the pipe closed without a word: it is about to end by itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_WITHIN_S)
        self.stop()
        if heard:
            raise Refused("child_ended", f"{self.name} ended at its start with code {self._process.returncode}")
        raise Refused("child_not_ready", f"{self.name} is not ready after {self._ready_within_s:g} s")

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self.pid is not None

    def stop(self) -> None:
        """End the process: politely, then by force."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Supervisor:
    """Keeps ``services`` alive until SIGTERM or SIGINT."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = list(services)
        self._stopping = False
        self._started_at: dict[str, float] = {}
        self._pause_s = dict.fromkeys((service.name for service in services), _FIRST_PAUSE_S)
        self._next_try: dict[str, float] = {}
        self._outages = {service.name: OutageLog(_LOGGER, service.name) for service in services}

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Start every service in order, call ``on_ready``, and keep them alive until a signal says stop.

        Raises:
            CloudError: one of them cannot be started at first.
        """
        with _signals(self._stop) as wake:
            try:
                for service in self._services:
                    service.start()
                    self._started_at[service.name] = time.monotonic()
                    if self._stopping:
                        return
                if on_ready is not None:
                    on_ready()
                while not self._stopping:
                    self._look()
                    select.select([wake], [], [], _LOOK_EVERY_S)
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
            finally:
                for service in reversed(self._services):
                    service.stop()

    def _stop(self) -> None:
        self._stopping = True

    def _look(self) -> None:
        now = time.monotonic()
        for service in self._services:
            name = service.name
            if service.alive():
                if now - self._started_at.get(name, now) > _SETTLED_AFTER_S:
                    self._pause_s[name] = _FIRST_PAUSE_S
                continue
            if name not in self._next_try:
                self._outages[name].failed("it ended")
                self._next_try[name] = now + self._pause_s[name]
                self._pause_s[name] = min(_LONGEST_PAUSE_S, self._pause_s[name] * 2)
            if now >= self._next_try[name]:
                self._start_again(service)

    def _start_again(self, service: Service) -> None:
        del self._next_try[service.name]
        try:
            service.start()
        except (CloudError, OSError) as error:
            self._outages[service.name].failed(error)
            return
        self._started_at[service.name] = time.monotonic()
        self._outages[service.name].recovered()


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[int]:
    """Yield a descriptor that becomes readable at each signal; SIGTERM and SIGINT call ``stop``."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before_wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {
        signal.SIGTERM: lambda *_: stop(),
        signal.SIGINT: lambda *_: stop(),
        signal.SIGCHLD: lambda *_: None,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_wakeup)
        os.close(reading)
        os.close(writing)
