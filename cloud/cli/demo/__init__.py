"""`ballast demo`: the whole story on one machine, each step judged against the simulator's truth.

    simulator x2 --Modbus, TCP 4028-- agent x2 --link proxy-- cloud (PostgreSQL, signer, serve, worker) -- market

Invariant: a step is held only if the world itself shows it; nothing is reported from the plan alone.
"""
