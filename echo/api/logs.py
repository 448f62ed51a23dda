"""Log lines: readable, or JSON for machines; both say which request they belong to."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone
from typing import Any

from echo.api.call import current_call

# What could end a line or drive a terminal: a message may quote what a client sent.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure_logging(*, debug: bool, format: str) -> None:
    """Log to stderr, one line each (but for tracebacks); ``debug`` adds Echo's own details.

    ``format``: readable or json.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if format == "json" else ReadableFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its start and stop lines
    if debug:
        logging.getLogger("echo").setLevel(logging.DEBUG)


class ReadableFormatter(logging.Formatter):
    """Time, level, logger, the request in brackets, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s%(request)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        call = current_call()
        record.request = "" if call is None else f" [{call.request_id}]"
        return _CONTROL.sub(_escape, super().formatMessage(record))


class JsonFormatter(logging.Formatter):
    """An object a line: time (UTC), level, logger, message; of a request its id, its protocol and,
    where there are traces, the trace's id; what the caller gave as ``extra={"fields": {...}}``; a
    traceback as ``exception``.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (call := current_call()) is not None:
            line |= {"request_id": call.request_id, "protocol": call.protocol}
            if call.trace is not None:
                line["trace_id"] = call.trace.trace_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
