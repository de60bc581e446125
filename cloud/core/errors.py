"""The errors of the cloud, one root. Translated once, at the adapter; mapped to HTTP and gRPC codes in one table.

Invariant: every message is one line that names the cause and, where a person can act, what to do next.

    CloudError -> Transient            try again, later
               -> Permanent            park and count
               -> Refused(code)        a rule said no; the code is stable
                    -> BadInput        a person's file, field or argument
                    -> SecondGateway   one identity speaks from two places
                    -> StaleSequence   the signer has already signed that far
               -> NotFound | Conflict | Forbidden
               -> LeaseLost           another replica does this work now
"""


class CloudError(Exception):
    """The root of everything the cloud raises on purpose."""


class Transient(CloudError):
    """Worth trying again: a lost connection, a busy peer, a database that is starting."""


class Permanent(CloudError):
    """Trying again cannot help: park it and count it."""


class Refused(CloudError):
    """A rule said no. ``code`` is stable and may be matched on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BadInput(Refused):
    """What a person wrote cannot be used; the message names file, line or field, cause and remedy."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_input", message)


class StaleSequence(Refused):
    """An order's ``(signing_epoch, sequence)`` is not above the last one signed for its site."""

    def __init__(self, site_id: str, signing_epoch: int, sequence: int) -> None:
        super().__init__(
            "stale_sequence",
            f"site {site_id}: the signer has signed up to ({signing_epoch}, {sequence}); number the order above it",
        )
        self.site_id, self.signing_epoch, self.sequence = site_id, signing_epoch, sequence


class SecondGateway(Refused):
    """Another process of the same agent holds the site's link: two gateways have one identity, or one was restarted."""

    def __init__(self, site_id: str, agent_id: str) -> None:
        super().__init__(
            "second_gateway",
            f"another gateway drives site {site_id} as agent {agent_id} right now: stop one of the two; if this one was"
            " just started again, it is let in once the other has been silent for 20 s",
        )


class NotFound(CloudError):
    """Nothing of that name is visible to the caller."""


class Conflict(CloudError):
    """Somebody else was first, or the same key already holds something different."""


class Forbidden(CloudError):
    """The caller is known and may not do this."""


class LeaseLost(CloudError):
    """Another replica holds the lease of this work; trying again without the lease cannot help."""
