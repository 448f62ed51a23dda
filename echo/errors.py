"""Typed errors. Each says what is wrong and what to do; the API maps each class to a status."""

from __future__ import annotations


class EchoError(Exception):
    """Base of every error this package raises on purpose.

    ``param`` names the request field or configuration key at fault, where there is one.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ConfigError(EchoError):
    """An impossible setting in the configuration, the environment or the command line."""


class CheckpointError(EchoError):
    """Weights that are not there, not complete or not of this model."""


class InvalidRequestError(EchoError):
    """The request itself is at fault: an impossible value, an empty text, a wrong type."""


class AudioDecodeError(InvalidRequestError):
    """Bytes that are not audio we can read."""


class LimitExceededError(InvalidRequestError):
    """More text, bytes or seconds than the configured limit."""


class VoiceNotFoundError(InvalidRequestError):
    """No voice of that name; the message lists some that exist."""


class VoiceExistsError(InvalidRequestError):
    """A new voice under a name that is taken."""


class StorageError(EchoError):
    """A folder of ours that can't be written: full, read-only, not permitted."""


class BusyError(EchoError):
    """The queue is full. ``retry_after_s``: when trying again makes sense."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(EchoError):
    """The model left memory and can't be loaded now. ``retry_after_s``: until it is tried again."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CancelledError(EchoError):
    """The request was cancelled by its owner."""


class GenerationError(EchoError):
    """The model failed while working on a valid request."""
