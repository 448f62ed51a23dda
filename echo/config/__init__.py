"""Configuration: ``conf/`` and the environment, as frozen dataclasses.

The only package that knows Hydra, which is imported when a configuration is composed, not before.
"""

from echo.config.build import build
from echo.config.cli import ProgramArgs, parse_program_args, run_program
from echo.config.compose import (
    Setting,
    compose,
    describe,
    load_preset,
    prefer_command_line,
    to_yaml,
)
from echo.config.paths import shipped_path
from echo.config.resolvers import preset_names, register_resolvers, unknown_flags
from echo.config.schema import (
    ChunkingConfig,
    ClusterConfig,
    CompileConfig,
    EchoConfig,
    EngineConfig,
    InworldConfig,
    LoraConfig,
    ModelConfig,
    PresetConfig,
    SamplerConfig,
    ServerConfig,
    TextConfig,
    UIConfig,
    VadConfig,
    VoicesConfig,
)

__all__ = [
    "ChunkingConfig",
    "ClusterConfig",
    "CompileConfig",
    "EchoConfig",
    "EngineConfig",
    "InworldConfig",
    "LoraConfig",
    "ModelConfig",
    "PresetConfig",
    "ProgramArgs",
    "SamplerConfig",
    "ServerConfig",
    "Setting",
    "TextConfig",
    "UIConfig",
    "VadConfig",
    "VoicesConfig",
    "build",
    "compose",
    "describe",
    "load_preset",
    "parse_program_args",
    "prefer_command_line",
    "preset_names",
    "register_resolvers",
    "run_program",
    "shipped_path",
    "to_yaml",
    "unknown_flags",
]
