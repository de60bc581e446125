"""Benchmarks: ``python -m tests.bench.NAME``; progress on stderr, one JSON object as the last line on stdout.

The exit code says only whether the bench itself worked; it judges nothing.
"""
