from __future__ import annotations

import socket

import pytest

from echo.cluster.checks import check_room
from echo.cluster.server import deployed
from echo.config import compose
from echo.errors import ConfigError, EchoError

pytest.importorskip("ray.serve", reason="needs the extra cluster")

from echo.cluster.app import build, gpus, options
from echo.cluster.replica import Replica, config_of_replica

SMALL = ("model=tiny", "cluster.address=null")


def of(*overrides: str):
    return compose(["cluster=ray", *SMALL, *overrides])


def test_a_single_server_is_the_default():
    assert not compose(SMALL).cluster.enabled
    assert of().cluster.enabled


def test_as_many_replicas_as_are_asked_for_or_as_the_streams_need():
    assert options(of("cluster.replicas=3"))["num_replicas"] == 3
    scaled = options(of("cluster.replicas=2", "cluster.max_replicas=9", "cluster.target_streams=5"))
    autoscaling = scaled["autoscaling_config"]
    assert (autoscaling.min_replicas, autoscaling.max_replicas) == (2, 9)
    assert autoscaling.target_ongoing_requests == 5
    assert "num_replicas" not in scaled


def test_fewer_than_the_fewest_is_a_wrong_setting():
    with pytest.raises(ConfigError, match=r"cluster\.max_replicas"):
        of("cluster.replicas=3", "cluster.max_replicas=2")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["model=base"], 1.0),
        (["model=base", "model.device=cpu"], 0.0),
        (["model=tiny"], 0.0),
        (["model=tiny", "model.device=cuda"], 1.0),
        (["model=base", "cluster.gpus_per_replica=0.5"], 0.5),
    ],
)
def test_a_replica_has_the_gpu_that_its_model_wants(overrides, wanted):
    config = of(*overrides)
    assert gpus(config) == wanted
    assert options(config)["ray_actor_options"]["num_gpus"] == wanted


def test_on_a_machine_of_ours_what_is_not_there_is_told_at_once():
    two = of("cluster.replicas=2", "cluster.cpus_per_replica=1")
    check_room(two, 0.5, {"CPU": 2.0, "GPU": 1.0})
    with pytest.raises(ConfigError, match=r"1 GPUs.*there are 0.*model\.device=cpu"):
        check_room(two, 0.5, {"CPU": 2.0})
    with pytest.raises(ConfigError, match=r"2 CPUs.*there are 1.*cluster\.cpus_per_replica"):
        check_room(two, 0.0, {"CPU": 1.0})


def test_a_replica_takes_as_many_requests_as_its_engine_and_streams_have_time_to_end():
    there = options(of("engine.max_active=3", "engine.max_queued=4", "cluster.drain_seconds=77"))
    assert there["max_ongoing_requests"] == 7
    assert there["graceful_shutdown_timeout_s"] == 77
    assert options(of("cluster.max_streams=5"))["max_ongoing_requests"] == 5


def test_a_replica_uses_the_cores_it_was_given():
    assert config_of_replica(of("cluster.cpus_per_replica=3")).engine.cpu_threads == 3
    assert config_of_replica(of("cluster.cpus_per_replica=0.5")).engine.cpu_threads == 1
    assert config_of_replica(of("engine.cpu_threads=2")).engine.cpu_threads == 2


def test_a_replica_that_could_not_be_made_is_deleted_without_complaint():
    half = Replica.__new__(Replica)
    with pytest.raises(Exception, match="get_replica_context"):  # which there is none of here
        half.__init__(of())
    half.__del__()


def test_a_config_file_gives_settings_as_the_command_line_does():
    app = build({"overrides": ["model=tiny", "cluster.replicas=4"]})
    deployment = app._bound_deployment
    assert deployment.name == "Echo"
    assert deployment.num_replicas == 4


@pytest.mark.parametrize("args", [{"override": []}, {"overrides": "model=tiny"}])
def test_arguments_that_are_none_are_told(args):
    with pytest.raises(ConfigError, match="overrides"):
        build(args)


def test_clones_that_would_stay_on_one_machine_of_several_are_refused():
    cloning = "inworld.clone_enabled=true"
    with pytest.raises(ConfigError, match=r"voices\.shared"):
        build({"overrides": ["model=tiny", cloning]})
    build({"overrides": ["model=tiny", cloning, "voices.shared=/mnt/voices"]})
    elsewhere = of(cloning, "cluster.address=127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"voices\.shared"), deployed(elsewhere):
        pass


def test_a_taken_port_is_told_before_anything_is_started():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(EchoError, match=str(port)),
            deployed(of("server.host=127.0.0.1", f"server.port={port}")),
        ):
            pass
