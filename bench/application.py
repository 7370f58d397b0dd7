"""The application under measurement: gateway and worker in one process with one client, as `holdfast dev` runs them.

`python -m bench.application` reads the usual settings from the environment and prints the gateway's address.
"""

import asyncio
import contextlib
import cProfile
import logging
import os
import signal

import uvloop

import worker
from gateway.app import create_app
from gateway.engine import Engine
from gateway.server import serving
from holdfast.configuration import load_configuration
from holdfast.leaving import leave
from holdfast.settings import load_settings
from workflows.connection import connect_client


async def main() -> None:
    """Serve until SIGTERM."""
    settings = load_settings()
    configuration = load_configuration(settings.config_dir)
    services = await worker.open_services(settings, configuration)
    await services.warm_up()
    client = await connect_client(settings.engine.address, settings.engine.namespace)
    await worker.apply_queue_limits(client, settings, configuration)
    workers = worker.build_workers(client, services, settings, configuration)
    engine = Engine(client, settings.engine)
    app = create_app(settings, configuration, services.ledger, engine, relay=services.relay)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    running = asyncio.create_task(worker.serve_workers(workers))
    async with serving(app, settings.gateway.host, settings.gateway.port) as port:
        print(f"http://{settings.gateway.host}:{port}", flush=True)
        await stopped.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await services.aclose()


if __name__ == "__main__":
    # Simulated faults are part of the load; a traceback for each would be part of it too.
    logging.getLogger("temporalio").setLevel(logging.ERROR)
    profile = cProfile.Profile() if os.environ.get("BENCH_PROFILE") else None
    if profile:
        profile.enable()
    uvloop.run(main())
    if profile:
        profile.disable()
        profile.dump_stats(os.environ["BENCH_PROFILE"])
    leave(0)
