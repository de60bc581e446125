"""What opens and closes as a whole.

Invariant: everything a service listens at is open inside its context, and nothing of it outside, whatever failed.
"""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Service(ABC):
    """An async context manager over ``open`` and ``close``."""

    @abstractmethod
    async def open(self) -> None:
        """Open everything; what fails half-way is closed by the caller."""

    @abstractmethod
    async def close(self) -> None:
        """Close every socket, also after an ``open`` that failed half-way."""

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
