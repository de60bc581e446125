"""Use cases that span packages, in one unit of work each."""
