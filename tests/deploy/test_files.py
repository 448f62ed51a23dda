"""What is in ``deploy/`` fits the program: files, flags, ports, metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from echo import cli
from echo.api.metrics import Metrics
from echo.api.watch import METRICS_PATH
from echo.config import compose
from echo.config.resolvers import known_flags

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = ("Dockerfile.cpu", "Dockerfile.cuda")
COMPOSE = ("compose.yaml", "compose.cuda.yaml")
CACHE = "/var/cache/echo"
_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def instructions(name: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest), continuation lines joined, comments left out."""
    lines = (DEPLOY / name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def environment(name: str) -> dict[str, str]:
    """What the last stage of a Dockerfile sets."""
    found = [rest for word, rest in instructions(name) if word == "ENV"][-1]
    return dict(pair.split("=", 1) for pair in found.split())


def example_flags() -> dict[str, str]:
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    matches = [re.fullmatch(r"#?([A-Z0-9_]+)=(.*)", line) for line in lines]
    pairs = [match.groups() for match in matches if match]
    assert len(dict(pairs)) == len(pairs), "a flag is there twice"
    return dict(pairs)


def loaded(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_copies_what_is_there_and_lets_nothing_else_in(name):
    copied = {
        source
        for word, rest in instructions(name)
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert copied >= {"conf", "audio_prompts", "echo", "pyproject.toml"}
    for source in copied:
        assert (ROOT / source).exists(), source
    ignore = (DEPLOY / f"{name}.dockerignore").read_text().splitlines()
    assert ignore[1] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == copied


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_has_two_stages_and_no_root(name):
    words = [word for word, _ in instructions(name)]
    assert words.count("FROM") == 2
    known = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN"}
    assert set(words) <= known | {"USER", "VOLUME", "WORKDIR"}
    assert dict(instructions(name))["USER"] == "10001:10001"
    assert "--uid 10001 " in (DEPLOY / name).read_text()
    last_run = max(index for index, word in enumerate(words) if word == "RUN")
    assert words.index("USER") > last_run, "something would run as another user"
    assert json.loads(dict(instructions(name))["VOLUME"]) == [CACHE, "/data"]


HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.mark.skipif(not HADOLINT.exists(), reason="needs hadolint, which has no wheel here")
@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_no_fault(name, tmp_path):
    def lint(path: Path) -> str:
        return subprocess.run([HADOLINT, path], capture_output=True, text=True).stdout

    assert lint(DEPLOY / name) == ""
    worse = tmp_path / "Dockerfile"
    worse.write_text((DEPLOY / name).read_text().replace("USER 10001:10001", "USER root"))
    assert "DL3002" in lint(worse)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_sets_flags_that_exist_and_keeps_caches_in_the_volume(name):
    variables = environment(name)
    ours = {each for each in variables if each.startswith("ECHO_") or each in ("HOST", "PORT")}
    assert ours <= set(known_flags())
    for cache in ("HF_HOME", "ECHO_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert variables[cache].startswith(f"{CACHE}/")
    assert f"EXPOSE {variables['PORT']}" in (DEPLOY / name).read_text()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_has_what_the_flags_of_the_example_want(name):
    [extras] = re.findall(r'"\.\[([a-z,]+)\]"', (DEPLOY / name).read_text())
    wanted = {"ECHO_TRACES": "otel", "ECHO_QUANTIZE": "quantize", "ECHO_CARD": "quantize"}
    assert wanted.keys() <= example_flags().keys()
    assert set(wanted.values()) <= set(extras.split(","))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_starts_a_command_that_exists_with_settings_that_do(name):
    started = dict(instructions(name))
    assert json.loads(started["ENTRYPOINT"]) == ["echo-tts"]
    command, *overrides = json.loads(started["CMD"])
    assert f"echo-tts {command} " in cli.USAGE
    assert compose(["model=tiny", *overrides]).voices.clone_root == "/data/clones"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_health_check_succeeds_where_health_is_told_and_fails_elsewhere(name, monkeypatch):
    check = dict(instructions(name))["HEALTHCHECK"].partition("CMD ")[2]
    python, flag, code = json.loads(check)
    assert (python, flag) == ("python", "-c")
    with HTTPServer(("127.0.0.1", 0), OnlyHealth) as server:
        monkeypatch.setenv("PORT", str(server.server_port))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            exec(code, {})
            with pytest.raises(urllib.error.HTTPError):
                exec(code.replace("/health", "/ill"), {})
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(urllib.error.URLError):
        exec(code, {})


class OnlyHealth(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


def test_compose_files_name_what_is_there():
    services = loaded("compose.yaml")["services"]
    assert set(services) == {"echo", "prometheus", "grafana"}
    volumes = loaded("compose.yaml")["volumes"]
    for name in COMPOSE:
        build = loaded(name)["services"]["echo"]["build"]
        assert (ROOT / build["dockerfile"]).is_file()
    for service in services.values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            there = (DEPLOY / source).exists() if source.startswith(".") else source in volumes
            assert there, volume
        assert service["cap_drop"] == ["ALL"]


def test_the_container_listens_where_compose_and_prometheus_look_for_it():
    services = loaded("compose.yaml")["services"]
    variables = {**environment("Dockerfile.cpu"), **services["echo"]["environment"]}
    assert {each for each in variables if each.startswith("ECHO_")} <= set(known_flags())
    [port] = services["echo"]["ports"]
    assert port.endswith(f":{variables['PORT']}")
    [job] = loaded("prometheus.yml")["scrape_configs"]
    assert job["metrics_path"] == METRICS_PATH
    assert job["static_configs"] == [{"targets": [f"echo:{variables['PORT']}"]}]


def test_grafana_is_given_its_source_and_its_dashboard():
    services = loaded("compose.yaml")["services"]
    [source] = loaded("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {target["datasource"]["uid"] for target in targets()} == {source["uid"]}
    [provider] = loaded("grafana/provisioning/dashboards/echo.yaml")["providers"]
    inside = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/dashboard.json" in inside


def targets() -> list[dict[str, Any]]:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    return [target for panel in panels for target in panel.get("targets", [])]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:echo|process)_\w+", expression))


def exposed(families: list[Metric]) -> set[str]:
    return {f"{family.name}{suffix}" for family in families for suffix in _SUFFIXES[family.type]}


def test_the_dashboard_asks_for_metrics_that_exist(make_engine):
    there = exposed(list(Metrics(make_engine()).collect()))
    asked = {name for target in targets() for name in names_in(target["expr"])}
    assert asked - there == set()


def test_the_dashboard_shows_every_metric_of_ours(make_engine):
    expressions = " ".join(target["expr"] for target in targets())
    for family in Metrics(make_engine()).collect():
        assert family.name in expressions or not family.name.startswith("echo_"), family.name


def test_a_metric_that_does_not_exist_would_be_noticed(make_engine):
    there = exposed(list(Metrics(make_engine()).collect()))
    assert names_in("sum(rate(echo_stepz_total[1m]))") - there == {"echo_stepz_total"}


def test_the_dashboard_selects_values_of_labels_that_exist(make_engine):
    known = {
        (label, value)
        for family in Metrics(make_engine()).collect()
        for sample in family.samples
        for label, value in sample.labels.items()
    }
    for target in targets():
        for label, value in re.findall(r'(\w+)="(\w+)"', target["expr"]):
            assert label == "job" or (label, value) in known, target["expr"]


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_example_lists_every_flag_and_no_other():
    assert set(example_flags()) == set(known_flags())


def test_the_example_names_the_defaults(monkeypatch):
    flags = example_flags()
    for name in flags:
        monkeypatch.delenv(name, raising=False)
    usual = asdict(compose(["model=base"]))
    for name, value in flags.items():
        monkeypatch.setenv(name, value)
    assert asdict(compose(["model=base"])) == usual


def test_the_example_is_all_comments_so_that_a_copy_changes_nothing():
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    assert all(line.startswith("#") or not line for line in lines)


def test_the_unit_starts_what_there_is_with_flags_that_exist():
    unit = (DEPLOY / "echo-tts.service").read_text()
    assert set(re.findall(r"^Environment=((?:ECHO_)\w+)=", unit, re.M)) <= set(known_flags())
    [start] = re.findall(r"^ExecStart=(.*)$", unit, re.M)
    program, command, *overrides = start.split()
    assert Path(program).name == "echo-tts"
    assert f"echo-tts {command} " in cli.USAGE
    compose(["model=tiny", *(each.replace("%S", "/var/lib") for each in overrides)])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    unit = (DEPLOY / "echo-tts.service").read_text()
    copy = tmp_path / "echo-tts.service"

    def verify(text: str) -> str:
        copy.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", text, flags=re.M))
        command = ["systemd-analyze", "verify", str(copy)]
        return subprocess.run(command, capture_output=True, text=True).stderr

    assert verify(unit) == ""
    assert "PrivateTemp" in verify(unit.replace("PrivateTmp", "PrivateTemp"))
