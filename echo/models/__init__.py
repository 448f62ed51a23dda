"""The assembled networks, and everything about their weights."""
