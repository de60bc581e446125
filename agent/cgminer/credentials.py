"""Who we are to a device. Pure."""

from typing import NamedTuple


class Credentials(NamedTuple):
    """A user and a password. The password shows in no log: its representation hides it."""

    user: str
    password: str

    def __repr__(self) -> str:
        """Return the credentials without their password."""
        return f"Credentials({self.user!r}, ***)"
