"""linopy's and PyPSA's side of the plan bench, in an environment of their own; imports nothing of ours.

Reads one JSON job a line, ``{"peer": "linopy" | "pypsa", "runs", ..., the programme as plain numbers}``, builds and
solves it ``runs`` times and prints the fastest run's CPU seconds with the objective. linopy gets the very programme that
ours solves. PyPSA gets it without the longest off time, which it does not know: a bus with one import, a fixed load, and
the classes as consuming generators under linearised unit commitment. Both hand the model to HiGHS directly, with the
options that ours uses.
"""

import json
import logging
import sys
import time
import warnings

OPTIONS = {"solver": "ipm", "threads": 1, "random_seed": 7, "output_flag": False}


def values_of(job):
    """What one running unit of each class earns in each slot."""
    import numpy as np

    revenue, power = np.array(job["revenue_usd_per_h"]), np.array(job["power_mw"])
    return (revenue[:, None] - power[:, None] * np.array(job["prices"])) * job["hours"]


def linopy_model(job):
    import linopy
    import numpy as np
    import pandas as pd
    import xarray as xr

    n, hours = len(job["prices"]), job["hours"]
    kinds, slots = pd.RangeIndex(len(job["units"]), name="kind"), pd.RangeIndex(n, name="slot")
    units = xr.DataArray(np.array(job["units"], float), [kinds])
    power = xr.DataArray(np.array(job["power_mw"]), [kinds])
    values = xr.DataArray(values_of(job), [kinds, slots])
    model = linopy.Model()
    most = units * xr.DataArray(np.arange(1.0, n + 1), [slots])
    stops = model.add_variables(0, most, name="stops")
    starts = model.add_variables(0, most, name="starts")
    load = model.add_variables(0, coords=[slots], name="load")
    for counts, allowance, partner, lag in ((stops, units, starts, job["min_up"]), (starts, 0, stops, job["min_down"])):
        model.add_constraints(counts.isel(slot=slice(1, None)) - counts.shift(slot=1).isel(slot=slice(1, None)) >= 0)
        model.add_constraints(counts.isel(slot=slice(0, lag)) <= allowance)
        model.add_constraints((counts - partner.shift(slot=lag)).isel(slot=slice(lag, None)) <= allowance)
    due = n - job["max_off"]
    model.add_constraints((starts.shift(slot=-job["max_off"]) - stops).isel(slot=slice(0, due)) >= 0)
    first = xr.DataArray(np.array(job["constant_mw"]), [slots]) + float((units * power).sum())
    model.add_constraints(load + (power * stops).sum("kind") - (power * starts).sum("kind") == first)
    capped = [place for place, cap in enumerate(job["caps_mw"]) if cap is not None]
    over = model.add_variables(0, coords=[pd.Index(capped, name="slot")], name="over")
    caps = xr.DataArray([job["caps_mw"][place] for place in capped], [pd.Index(capped, name="slot")])
    model.add_constraints(load.isel(slot=capped) - over <= caps)
    above = model.add_variables(0, coords=[slots], name="above")
    model.add_constraints(load - above <= job["import_mw"])
    jump = model.add_variables(0, coords=[slots[1:]], name="jump")
    step = (load - load.shift(slot=1)).isel(slot=slice(1, None))
    model.add_constraints(step - jump <= job["ramp_mw"])
    model.add_constraints(-1 * step - jump <= job["ramp_mw"])
    ties = xr.DataArray(np.zeros((len(units), n)), [kinds, slots])
    ties[:, -1] = job["per_stop_usd"] + job["per_place_usd"] * np.arange(len(units))
    lost = ((values + ties) * stops).sum() - (values * starts).sum()
    slack = job["shed_usd_per_mwh"] * hours * over.sum() + job["import_usd_per_mwh"] * hours * above.sum()
    model.add_objective(lost + slack + job["ramp_usd_per_mw"] * jump.sum())
    return model, float((values * units).sum())


def run_linopy(job):
    model, constant = linopy_model(job)
    built = time.process_time()
    status, condition = model.solve(solver_name="highs", io_api="direct", **OPTIONS)
    return built, constant - model.objective.value, f"{status} {condition}"


def run_pypsa(job):
    import numpy as np
    import pypsa

    n, hours = len(job["prices"]), job["hours"]
    units, power = np.array(job["units"], float), np.array(job["power_mw"])
    names = [f"kind-{place}" for place in range(len(units))]
    network = pypsa.Network(snapshots=range(n))
    network.snapshot_weightings = network.snapshot_weightings.astype(float) * hours
    network.add("Bus", "site")
    limits = np.array([min(job["import_mw"], cap or job["import_mw"]) for cap in job["caps_mw"]])
    network.add(
        "Generator",
        "import",
        bus="site",
        p_nom=job["import_mw"],
        p_max_pu=limits / job["import_mw"],
        marginal_cost=np.array(job["prices"]),
        ramp_limit_up=job["ramp_mw"] / job["import_mw"],
        ramp_limit_down=job["ramp_mw"] / job["import_mw"],
    )
    worth = np.array(job["revenue_usd_per_h"]) / power
    network.add(
        "Generator",
        names,
        bus="site",
        p_nom=units * power,
        sign=-1.0,
        marginal_cost=-worth,
        committable=True,
        p_min_pu=1.0,
        min_up_time=job["min_up"],
        min_down_time=job["min_down"],
        up_time_before=job["min_up"],
        down_time_before=0,
    )
    network.add("Load", "constant", bus="site", p_set=np.array(job["constant_mw"]))
    model = network.optimize.create_model(linearized_unit_commitment=True)
    built = time.process_time()
    status, condition = network.optimize.solve_model(solver_name="highs", io_api="direct", solver_options=OPTIONS)
    unavoidable = float(np.dot(job["prices"], job["constant_mw"])) * hours  # ours counts the miners' money alone
    return built, unavoidable - model.objective.value, f"{status} {condition}"


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        job = json.loads(line)
        run = run_linopy if job["peer"] == "linopy" else run_pypsa
        best = None
        for _ in range(job["runs"]):
            began = time.process_time()
            built, objective, status = run(job)
            ended = time.process_time()
            if best is None or ended - began < best["seconds"]:
                best = {
                    "seconds": ended - began,
                    "build_s": built - began,
                    "objective_usd": objective,
                    "status": status,
                }
        print("=" + json.dumps(best), flush=True)


main()
