"""`python -m dashboards.console`: serves the console; `weir serve` and `weir up` start it."""

import argparse
import signal
import sys

import uvicorn

from dashboards.console.app import console
from dashboards.console.site import open_site
from pipeline import processes, telemetry
from pipeline.config import Settings
from pipeline.errors import PipelineError
from policies.errors import PolicyError


def main() -> int:
    """Serve until a signal; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    chosen = parser.parse_args()
    settings = Settings()
    if settings.console.invitation is not None and chosen.host not in {"127.0.0.1", "::1"}:
        sys.stderr.write("an invitation opens every door: it is for 127.0.0.1 only\n")
        return 2
    processes.die_with_parent(signal.SIGTERM)
    try:
        site = open_site(settings)
    except (PipelineError, PolicyError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    telemetry.configure(
        level=settings.telemetry.log_level,
        layout=settings.telemetry.log_format,
        instance=settings.instance,
        part="console",
    )
    telemetry.log.info("the console listens", host=chosen.host, port=chosen.port)
    try:
        uvicorn.run(
            console(site),
            host=chosen.host,
            port=chosen.port,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    finally:
        site.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
