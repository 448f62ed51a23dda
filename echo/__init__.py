"""Echo: speech in a cloned voice, streamed. See README.md."""

__version__ = "0.1.0"
