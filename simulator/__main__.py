"""`python -m simulator`: serve until SIGTERM or SIGINT."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from simulator.bill import BillFileError
from simulator.program import Profile, ProfileError
from simulator.server import Simulator


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command-line arguments; `None` takes the process's own.

    Returns:
        The exit code: 0 after a signal, 1 when the simulator could not start.
    """
    parser = argparse.ArgumentParser(
        prog="python -m simulator", description="An OpenAI- and Anthropic-compatible model provider that misbehaves."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8091, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seeds answers and faults (default: %(default)s)")
    parser.add_argument("--profile", type=Path, metavar="FILE.toml", help="latencies, faults and limits per model")
    parser.add_argument("--bill", type=Path, metavar="FILE.jsonl", help="file that keeps the bill across restarts")
    options = parser.parse_args(arguments)
    try:
        profile = Profile() if options.profile is None else Profile.load(options.profile)
        simulator = Simulator(
            host=options.host, port=options.port, seed=options.seed, profile=profile, bill_path=options.bill
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(simulator))
    except (ProfileError, BillFileError) as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(
            f"The simulator cannot listen on {options.host}:{options.port}: {reason}. "
            "Choose another with --port, or stop what is listening there.",
            file=sys.stderr,
        )
        return 1
    return 0


async def _serve(simulator: Simulator) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with simulator:
        print(f"Simulator listening on {simulator.url}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
