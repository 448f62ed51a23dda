from __future__ import annotations

import sys

import pytest

from echo.cluster.server import deployed, main
from echo.config import compose
from echo.errors import ConfigError


def test_without_ray_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    config = compose(["cluster=ray", "model=tiny", "cluster.address=null"])
    with pytest.raises(ConfigError, match=r"pip install 'echo-tts\[cluster\]'"), deployed(config):
        pass


def test_a_wrong_setting_is_told_in_a_line(capsys):
    assert main(["cluster=ray", "cluster.replicas=0"]) == 2
    assert "cluster.replicas" in capsys.readouterr().err


def test_a_page_that_is_asked_for_is_refused_and_not_left_out(capsys):
    assert main(["cluster=ray", "model=tiny", "ui.on_server=true"]) == 2
    assert "echo-tts ui" in capsys.readouterr().err


def test_both_ways_of_serving_start_here():
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
