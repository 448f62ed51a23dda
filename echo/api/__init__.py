"""The HTTP API: one router per protocol over one engine."""

from echo.api.app import create_app

__all__ = ["create_app"]
