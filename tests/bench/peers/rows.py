"""A row a sample: the ingest bench's peer, in an environment of its own; imports nothing of ours.

Reads one JSON job from stdin: ``{"mode", "dsn", "samples", "seconds"}``; ``samples`` names a file of
``[site][batch][row]``. Modes ``execute_values`` and ``sqlalchemy`` store from memory: they print ``warm``, wait for a
line, store batches for ``seconds``, print figures. Mode ``messages`` encodes the batches into files beside the samples,
serves them over gRPC, prints ``{"port"}``, and prints figures at each further line. CPU is that of this process.
"""

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import psycopg2
from psycopg2.extras import execute_values

VALUES = (
    *("state", "hashrate_ths", "power_w", "power_source", "board_temp_c", "chip_temp_c"),
    *("fan_rpm", "accepted", "rejected", "uptime_s"),
)
NAMES = ("site_id", "miner_id", "ts", *VALUES)
COLUMNS = """
    site_id text NOT NULL, miner_id text NOT NULL, ts timestamptz NOT NULL, state text NOT NULL,
    hashrate_ths double precision, power_w double precision, power_source text NOT NULL,
    board_temp_c double precision, chip_temp_c double precision, fan_rpm integer,
    accepted bigint, rejected bigint, uptime_s bigint
"""
TABLES = (
    f"CREATE TABLE telemetry ({COLUMNS}, UNIQUE (miner_id, ts));"
    f"CREATE TABLE latest ({COLUMNS}, PRIMARY KEY (miner_id));"
)
INSERT = f"INSERT INTO telemetry ({', '.join(NAMES)}) VALUES %s ON CONFLICT (miner_id, ts) DO NOTHING"
UPSERT = (
    f"INSERT INTO latest ({', '.join(NAMES)}) VALUES %s ON CONFLICT (miner_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in ("site_id", "ts", *VALUES))
    + " WHERE excluded.ts > latest.ts"
)
STREAMS_AT_ONCE = 4


def read_samples(path):
    sites = json.loads(Path(path).read_text())
    for batches in sites:
        for batch in batches:
            for row in batch:
                row[2] = datetime.fromisoformat(row[2])
    return sites


def store(connection, rows):
    """Store one batch and what is newest of each miner, in one transaction."""
    with connection.cursor() as cursor:
        execute_values(cursor, INSERT, rows, page_size=len(rows))
        execute_values(cursor, UPSERT, rows, page_size=len(rows))
    connection.commit()


def sqlalchemy_store(dsn):
    """The same two statements as SQLAlchemy sends them at its fastest: its default goes row by row with ON CONFLICT."""
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import insert

    engine = sa.create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn), executemany_mode="values_plus_batch"
    )
    tables = sa.MetaData()
    tables.reflect(engine)
    telemetry, latest = tables.tables["telemetry"], tables.tables["latest"]
    new = insert(telemetry).on_conflict_do_nothing(index_elements=["miner_id", "ts"])
    newest = insert(latest)
    newest = newest.on_conflict_do_update(
        index_elements=["miner_id"],
        set_={name: newest.excluded[name] for name in ("site_id", "ts", *VALUES)},
        where=newest.excluded.ts > latest.c.ts,
    )

    def store_batch(_, rows):
        named = [dict(zip(NAMES, row, strict=True)) for row in rows]
        with engine.begin() as connection:
            connection.execute(new, named)
            connection.execute(newest, named)

    return store_batch


def warm(connection, sites):
    """Store the first batch of every site, so that each miner has its newest row."""
    for batches in sites:
        store(connection, [tuple(row) for row in batches[0]])


def run_from_memory(job, connection):
    sites = read_samples(job["samples"])
    save = store if job["mode"] == "execute_values" else sqlalchemy_store(job["dsn"])
    span = timedelta(minutes=len(sites[0]))
    warm(connection, sites)
    print("warm", flush=True)
    sys.stdin.readline()
    stored, turn, started, spent_s = 0, len(sites), time.perf_counter(), time.process_time()
    until = started + job["seconds"]
    while time.perf_counter() < until:
        batches = sites[turn % len(sites)]
        lap, place = divmod(turn // len(sites), len(batches))
        rows = [(row[0], row[1], row[2] + span * lap, *row[3:]) for row in batches[place]]
        save(connection, rows)
        stored, turn = stored + len(rows), turn + 1
    passed_s, spent_s = time.perf_counter() - started, time.process_time() - spent_s
    print(json.dumps({"samples": stored, "app_s": spent_s, "passed_s": passed_s}), flush=True)


def generated(folder):
    """Return the module of ``rows.proto``."""
    here = Path(__file__).parent
    command = ["-m", "grpc_tools.protoc", f"-I{here}", f"--python_out={folder}", str(here / "rows.proto")]
    subprocess.run([sys.executable, *command], check=True)
    sys.path.insert(0, str(folder))
    import rows_pb2

    return rows_pb2


def encode(pb, sites, folder):
    for number, batches in enumerate(sites):
        for place, batch in enumerate(batches):
            body = pb.Rows(site_id=batch[0][0])
            for row in batch:
                named = dict(zip(VALUES, row[3:], strict=True))
                body.rows.add(miner_id=row[1], ts_us=round(row[2].timestamp() * 1e6), **named)
            (folder / f"{number}-{place}.bin").write_bytes(body.SerializeToString())


def decoded(pb, message):
    body = pb.Rows.FromString(message)
    epoch = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=body.shift_us)
    rows = [
        (
            *(body.site_id, row.miner_id, epoch + timedelta(microseconds=row.ts_us), row.state, row.hashrate_ths),
            *(row.power_w, row.power_source, row.board_temp_c, row.chip_temp_c, row.fan_rpm, row.accepted),
            *(row.rejected, row.uptime_s),
        )
        for row in body.rows
    ]
    return body.seq, rows


async def serve(job):
    import grpc.aio

    folder = Path(job["samples"]).parent
    pb = generated(folder)
    sites = read_samples(job["samples"])
    encode(pb, sites, folder)
    connections = SimpleQueue()
    for _ in range(STREAMS_AT_ONCE):
        connections.put(psycopg2.connect(job["dsn"]))
    warm(psycopg2.connect(job["dsn"]), sites)
    threads = ThreadPoolExecutor(STREAMS_AT_ONCE)
    stored = 0

    def keep(message):
        nonlocal stored
        seq, rows = decoded(pb, message)
        connection = connections.get()
        try:
            store(connection, rows)
        finally:
            connections.put(connection)
        stored += len(rows)
        return seq.to_bytes(8, "big")

    async def connect(messages, _):
        async for message in messages:
            yield await asyncio.get_running_loop().run_in_executor(threads, keep, message)

    server = grpc.aio.server()
    handlers = {"Connect": grpc.stream_stream_rpc_method_handler(connect)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rows.Ingest", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps({"samples": stored, "app_s": time.process_time()}), flush=True)
    await server.stop(1)


def main():
    job = json.loads(sys.stdin.readline())
    connection = psycopg2.connect(job["dsn"])
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
    connection.commit()
    if job["mode"] == "messages":
        asyncio.run(serve(job))
    else:
        run_from_memory(job, connection)


main()
