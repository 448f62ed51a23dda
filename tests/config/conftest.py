import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No flag is set, and the working directory is empty."""
    for name in list(os.environ):
        if name.startswith("ECHO_") or name in ("PORT", "HOST"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
