"""Stop, start and look at miners at the site itself, with the cloud, the link, the broker and the daemon dead.

    run.py        who does the work: the living daemon, or this process under the journal's lock
      by_daemon.py  asks the daemon through its socket and shows what it answers
      direct.py     drives the miners itself; ledger.py keeps in agent.db what was ordered, sent and proven
        settling.py           reads feeders (readings.py) and looks at miners until the meters have told
        stops.py, weighing.py   how a stop stands, by its looks and its feeder's meter. Pure
      fence.py      ends a hung holder of the lock, by its recorded process
      choice.py     which miners: all, racks, named ones, or so many MW. Pure

Invariants: a miner is driven by one process at a time; no generated messages, grpc or broker are imported; a database
that cannot be used is said and keeps nobody from stopping a miner.
"""
