"""Peers of the poll bench; each file runs in that peer's own environment and imports nothing of ours."""
