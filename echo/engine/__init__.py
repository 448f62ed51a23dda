"""The one object that the server, the UI and the benchmarks share."""

from echo.engine.engine import Engine
from echo.engine.request import SpeechRequest
from echo.engine.stream import Progress, SpeechStream

__all__ = ["Engine", "Progress", "SpeechRequest", "SpeechStream"]
