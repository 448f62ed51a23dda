"""Inworld's protocol: speech over HTTP and a WebSocket, voices and their cloning."""
