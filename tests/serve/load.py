"""A service in a process of its own, to be killed or loaded: run with a data folder; prints its port."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    import uvicorn

    from blemish import registry
    from blemish.cli.serve import bound_socket
    from blemish.serve.app import create_app
    from blemish.serve.core import ServiceSettings
    from blemish.serve.service import Service

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    entry = registry.DetectorEntry("nearest_mean:NearestMean", "distance to the mean patch", "none: a toy")
    registry.DETECTORS["toy"] = entry
    folder, waiting = Path(sys.argv[1]), int(sys.argv[2])
    with bound_socket("127.0.0.1", 0) as listening, Service.open(folder, ServiceSettings(waiting=waiting)) as service:
        config = uvicorn.Config(create_app(service), log_level="warning", access_log=False)
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listening])
