"""Simulated mining sites, networks and markets: real sockets on loopback, physics behind them, faults on demand."""
