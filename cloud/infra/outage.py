"""Says a failure once an outage, and its end once."""

import logging


class OutageLog:
    """The state of one thing that can fail, such as ``database`` or ``market feed``."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Return whether the outage lasts."""
        return self._failures > 0

    def failed(self, error: BaseException | str) -> None:
        """Note a failure; the first of an outage is logged."""
        self._failures += 1
        if self._failures == 1:
            self._logger.warning("%s fails: %s; tried again until it works", self._what, error)

    def recovered(self) -> None:
        """Note a success; the first after an outage is logged."""
        if self._failures:
            self._logger.warning("%s works again after %d failures", self._what, self._failures)
            self._failures = 0
