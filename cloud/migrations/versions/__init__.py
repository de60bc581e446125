"""One module a revision, in order: 0001 infra, identity, hosting; later ones by their owners."""
