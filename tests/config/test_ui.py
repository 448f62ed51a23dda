import pytest

from echo.config import compose, describe, to_yaml
from echo.errors import ConfigError


def test_the_page_has_its_own_port_and_stays_on_this_machine(monkeypatch):
    monkeypatch.setenv("PORT", "9001")
    monkeypatch.setenv("HOST", "0.0.0.0")
    cfg = compose(["model=tiny"])
    assert (cfg.ui.host, cfg.ui.port) == ("127.0.0.1", 7860)
    assert (cfg.server.host, cfg.server.port) == ("0.0.0.0", 9001)


def test_host_and_port_of_the_page_can_be_set():
    cfg = compose(["model=tiny", "ui.host=0.0.0.0", "ui.port=80"])
    assert (cfg.ui.host, cfg.ui.port) == ("0.0.0.0", 80)


@pytest.mark.parametrize("setting", ["ui.port=0", "ui.port=65536", "ui.port=x", "ui.host=''"])
def test_an_impossible_address_names_the_key(setting):
    with pytest.raises(ConfigError) as caught:
        compose(["model=tiny", setting])
    assert caught.value.param == setting.partition("=")[0]


def test_the_password_is_never_shown():
    overrides = ["model=tiny", "ui.password=tell-nobody"]
    assert compose(overrides).ui.password == "tell-nobody"
    assert "tell-nobody" not in repr(compose(overrides)) + to_yaml(overrides)
    assert "tell-nobody" not in str(describe(overrides))


@pytest.mark.parametrize("setting", ["ui.password=''", "ui.votes_file=''"])
def test_an_empty_password_is_not_taken_for_none(setting):
    with pytest.raises(ConfigError, match="must not be empty; null for none"):
        compose(["model=tiny", setting])


@pytest.mark.parametrize(("word", "value"), [("null", None), ("on", True), ("false", False)])
def test_the_page_on_the_server_is_left_to_it_or_turned_on_or_off(word, value):
    assert compose(["model=tiny", f"ui.on_server={word}"]).ui.on_server is value
    assert compose(["model=tiny"]).ui.on_server is None
