"""What is deployed; ``serve deploy`` and KubeRay import ``echo.cluster.app:build``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from echo.cluster.checks import check_clones
from echo.cluster.edge import RETRY_AFTER_S
from echo.cluster.replica import Replica
from echo.config import EchoConfig, compose
from echo.errors import ConfigError

APPLICATION = "echo"
DEPLOYMENT = "Echo"
HEALTH_EVERY_S = 10.0
HEALTH_TIMEOUT_S = 30.0
START_ATTEMPTS = 3  # of a replica whose engine can't be loaded


def build(args: Mapping[str, Any]) -> Application:
    """The application with the settings ``args["overrides"]``, as on the command line.

    ``args``: those of the application in a config file. Raises ConfigError.
    """
    overrides = args.get("overrides", [])
    unknown = set(args) - {"overrides"}
    if unknown or not isinstance(overrides, list):
        raise ConfigError("args of the application may hold a list of overrides, nothing else")
    config = compose(["cluster=ray", *overrides])
    check_clones(config)
    return application(config)


def application(config: EchoConfig) -> Application:
    """Replicas of the engine and the server of ``config``."""
    deployment = serve.deployment(name=DEPLOYMENT, **options(config))
    return deployment(serve.ingress()(Replica)).bind(config)


def options(config: EchoConfig) -> dict[str, Any]:
    """Serve's settings of the deployment."""
    c = config.cluster
    engine = config.engine
    return {
        **_scale(config),
        "ray_actor_options": {"num_cpus": c.cpus_per_replica, "num_gpus": gpus(config)},
        "max_ongoing_requests": c.max_streams or engine.max_active + engine.max_queued,
        "max_queued_requests": c.max_waiting,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_S),
        "request_router_config": {
            "request_router_class": "echo.cluster.router:VoiceRouter",
            "request_router_kwargs": {"slack": c.voice_slack},
        },
        "graceful_shutdown_timeout_s": c.drain_seconds,
        "graceful_shutdown_wait_loop_s": 1.0,
        "health_check_period_s": HEALTH_EVERY_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "max_constructor_retry_count": START_ATTEMPTS,
        "max_surge_percent": c.surge_percent,
        "logging_config": {"enable_access_log": False},  # Watch has it, without paths
    }


def gpus(config: EchoConfig) -> float:
    """Of one replica. ``model.device=auto`` is a GPU for every model but the small one."""
    if config.cluster.gpus_per_replica is not None:
        return config.cluster.gpus_per_replica
    on_cuda = config.model.device.startswith("cuda")
    return (
        1.0 if on_cuda or (config.model.device == "auto" and config.model.name != "tiny") else 0.0
    )


def _scale(config: EchoConfig) -> dict[str, Any]:
    c = config.cluster
    if c.max_replicas is None or c.max_replicas == c.replicas:
        return {"num_replicas": c.replicas}
    autoscaling = AutoscalingConfig(
        min_replicas=c.replicas,
        max_replicas=c.max_replicas,
        target_ongoing_requests=c.target_streams,
        upscale_delay_s=c.upscale_delay_seconds,
        downscale_delay_s=c.downscale_delay_seconds,
    )
    return {"autoscaling_config": autoscaling}
