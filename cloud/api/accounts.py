"""Who may come in, over ``cloud.identity``: implements the console's ``Accounts`` port.

Invariant: a failed login is committed (its failure counts), whether the account exists or not.
"""

import logging
from typing import Final

from cloud.api.source import SignedIn
from cloud.core.access import system_principal
from cloud.core.errors import Refused
from cloud.identity import service as identity
from cloud.infra.db import Database

_LOG: Final = logging.getLogger(__name__)


class DatabaseAccounts:
    """Implements ``Accounts`` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sign_in(self, email: str, password: str) -> str | None:
        """Return a new session's token, or None."""
        tenant_id = identity.find_tenant(self._database, email)
        if tenant_id is None:
            return None
        with self._database.unit_of_work(system_principal(tenant_id, "login")) as uow:
            account = identity.authenticate(uow, email, password)
            token = None if account is None else identity.open_session(uow, account)
        _LOG.info("login %s tenant_id=%s", "refused" if token is None else "accepted", tenant_id)
        return token

    def session(self, token: str) -> SignedIn | None:
        """Return who holds ``token``, or None when it has ended."""
        found = identity.session_principal(self._database, token)
        return None if found is None else SignedIn(found.principal, found.email, found.must_change)

    def change_password(self, token: str, old: str, new: str) -> str | None:
        """Set the password, end the account's sessions, and return a new one's token; None for a wrong ``old``."""
        found = identity.session_principal(self._database, token)
        if found is None:
            return None
        with self._database.unit_of_work(found.principal) as uow:
            try:
                identity.change_password(uow, found.account_id, old, new)
            except Refused as refusal:
                if refusal.code == "wrong_password":
                    return None
                raise
            account = identity.account(uow, found.account_id)
            return None if account is None else identity.open_session(uow, account)

    def sign_out(self, token: str) -> None:
        """End the session."""
        found = identity.session_principal(self._database, token)
        if found is not None:
            with self._database.unit_of_work(found.principal) as uow:
                identity.close_session(uow, token)
