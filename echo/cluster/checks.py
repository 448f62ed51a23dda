"""What would never work, told before anything is started. Knows no Ray."""

from __future__ import annotations

from collections.abc import Mapping

from echo.config import EchoConfig
from echo.errors import ConfigError


def check_room(config: EchoConfig, gpus: float, there: Mapping[str, float]) -> None:
    """Raise ConfigError where the replicas will never fit: no node comes to a machine of ours.

    ``gpus``: of a replica. ``there``: what Ray found.
    """
    count = config.cluster.replicas
    for kind, each in (("GPU", gpus), ("CPU", config.cluster.cpus_per_replica)):
        here, key = there.get(kind, 0.0), f"cluster.{kind.lower()}s_per_replica"
        if here < each * count:
            advice = f"set cluster.replicas, {key}" + (" or model.device=cpu" * (kind == "GPU"))
            message = f"{count} replicas want {each * count:g} {kind}s and there are {here:g}"
            raise ConfigError(f"{message}; {advice}", param=key)


def check_clones(config: EchoConfig) -> None:
    """Raise ConfigError where replicas on several machines would each keep clones of their own."""
    if config.inworld.clone_enabled and config.voices.shared is None:
        message = (
            "inworld.clone_enabled on a cluster wants voices.shared (ECHO_SHARED_VOICES): a clone "
            "would be known to one machine only and gone with it; name a folder that all machines "
            "have, or s3://bucket/folder"
        )
        raise ConfigError(message, param="voices.shared")
