"""The HTTP API: one router per protocol over one engine; ``app.create_app`` puts it together."""
