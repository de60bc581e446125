"""What is wrong at this site, each cause with its next step. Changes nothing, and no broken part hides another.

    machine.py   disk, permissions, open files, wall clock          files.py   settings' lists, vault, database
    outlets.py   can each switch be used, does it answer            orders.py  stops and starts not proven, and why
    daemon.py    does it live, its link, clock, plan, backlog, the miners that do not answer, the meters that are silent

Invariants: each check is done whatever became of the others; one that fails on a defect of ours is itself a finding;
what only a living daemon knows is unknown without it, never well.
"""
