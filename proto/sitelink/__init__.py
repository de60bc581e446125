"""The wire package: everything that agent, cloud and simulator share. It does no I/O of its own."""
