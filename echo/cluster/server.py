"""Running Echo from a shell: one server, or replicas on Ray with ``cluster=ray``."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from echo.api.logs import configure_logging
from echo.api.server import (
    DESCRIPTION,
    INTERRUPTED,
    KEEP_ALIVE_S,
    PageOf,
    bind,
    log_settings,
)
from echo.api.server import serve as serve_alone
from echo.cluster.checks import check_clones, check_room
from echo.cluster.edge import IMPORT_PATH
from echo.config import EchoConfig, parse_program_args, run_program
from echo.errors import ConfigError, EchoError

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 256 << 20  # sound passes through it, in small pieces
# Ray's word for binding to loopback, which it does by itself on Windows and macOS.
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
PROXY_HOOK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": IMPORT_PATH}

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(argv: Sequence[str], page_of: PageOf | None = None) -> int:
    """The program: serve as ``argv`` says until interrupted; returns the exit status.

    ``page_of``: makes the page of a single server; replicas have none.
    """

    def run(config: EchoConfig) -> int:
        overrides = parse_program_args(argv, DESCRIPTION).overrides
        if config.cluster.enabled:
            return serve_cluster(config, overrides)
        return serve_alone(config, overrides, page_of)

    return run_program(argv, run, DESCRIPTION)


def serve_cluster(config: EchoConfig, overrides: Sequence[str] = ()) -> int:
    """Deploy to Ray, serve until interrupted, and take it down; returns the exit status.

    Raises EchoError: Ray is not there, the port is taken, or the replicas can't be started.
    """
    if config.ui.on_server:  # its visits are kept in one process
        message = "replicas have no page; start it apart: echo-tts ui"
        raise ConfigError(message, param="ui.on_server")
    configure_logging(debug=config.engine.debug, format=config.server.log_format)
    for number in _SIGNALS:  # until the replicas are ready it gives up, then it stops in order
        signal.signal(number, signal.default_int_handler)
    log_settings(overrides, os.environ)
    try:
        with deployed(config) as url:
            stop = threading.Event()
            for number in _SIGNALS:
                signal.signal(number, lambda _number, _frame: stop.set())
            log.info("listening on %s (documentation at /docs; Ctrl-C stops)", url)
            while not stop.wait(1.0):  # a wait without end could not be interrupted
                pass
            log.info("stopping; streams that run have a while to end")
    except KeyboardInterrupt:
        return INTERRUPTED
    log.info("stopped")
    return 0


@contextmanager
def deployed(config: EchoConfig) -> Iterator[str]:
    """The address of replicas that are ready; afterwards they, and a Ray of ours, are gone."""
    ours = config.cluster.address is None
    if ours:  # read by Ray when it is imported
        os.environ.setdefault(LOOPBACK_ONLY, "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    else:  # replicas of one machine share voices.clone_root
        check_clones(config)
    try:
        import ray
        from ray import serve

        from echo.cluster.app import APPLICATION, application, gpus
    except ImportError as error:
        message = f"cluster=ray wants Ray Serve ({error}): pip install 'echo-tts[cluster]'"
        raise ConfigError(message, param="cluster") from error
    with bind(config.server) as listener:  # found free, and given up again for the proxies
        port = listener.getsockname()[1]
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        try:
            _connect(config)
            if ours:
                check_room(config, gpus(config), ray.cluster_resources())
            serve.start(
                http_options={
                    "host": config.server.host,
                    "port": port,
                    "keep_alive_timeout_s": KEEP_ALIVE_S,
                },
                controller_options={"runtime_env": {"env_vars": PROXY_HOOK}},
            )
            stack.callback(_take_down, APPLICATION, ours)
            serve.run(application(config), name=APPLICATION)
        except (ConnectionError, RuntimeError) as error:  # no cluster there; what Serve says
            raise EchoError(f"the replicas did not start: {error}") from error
        except KeyboardInterrupt:
            log.info("interrupted before the replicas were ready; taking down what there is")
            raise
        host = config.server.host
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _connect(config: EchoConfig) -> None:
    """To the cluster that is named, or to one of this machine that nobody else reaches.

    Ray's own handler of SIGTERM, which would end us in the middle of anything, does not stay.
    """
    import ray

    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if config.cluster.address is not None:
            ray.init(address=config.cluster.address)
        else:
            ray.init(
                address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES
            )
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray sets one only there, too
            signal.signal(signal.SIGTERM, on_sigterm)


def _take_down(application: str, ours: bool) -> None:
    """Serve, or in a cluster of others, whose other applications are not ours to end, ours."""
    from ray import serve

    if ours:
        serve.shutdown()
        return
    try:
        serve.delete(application)
    except TimeoutError:
        log.info("the cluster goes on without us until the last streams have ended")
