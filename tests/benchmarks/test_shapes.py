from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from benchmarks.shapes import (
    MOST_BLOCKS,
    Shape,
    Space,
    block_sizes,
    preset_path,
    read_preset,
    shape_of,
    starts,
    suggest,
    write_preset,
)
from echo.config import compose
from echo.config.schema import sampler_of
from echo.errors import ConfigError
from echo.spec import MAX_LATENTS

SPACE = Space(
    first_latents=(16, 64),
    growth=(1.0, 4.0),
    longest_latents=(64, 320),
    first_steps=(3, 20),
    later_steps=(3, 24),
    cfg_min_t=(0.0, 0.8),
    scales=(0.5, 2.0),
    truncation=(0.5, 1.0),
)


@pytest.mark.parametrize("first", [16, 32, 64])
@pytest.mark.parametrize("growth", [1.0, 1.75, 4.0])
@pytest.mark.parametrize("longest", [64, 320])
def test_blocks_grow_and_fill_a_generation(first: int, growth: float, longest: int) -> None:
    sizes = block_sizes(first, growth, longest)
    assert (sizes[0], sum(sizes)) == (first, MAX_LATENTS)
    assert len(sizes) <= MOST_BLOCKS
    assert list(sizes[:-1]) == sorted(sizes[:-1])
    assert max(sizes[:-1]) <= longest
    assert all(size % 4 == 0 for size in sizes)


@pytest.mark.parametrize("model", ["tiny", "base"])
def test_the_search_begins_inside_its_space_near_the_preset_to_beat(model: str) -> None:
    config = compose([f"model={model}"])
    points = starts(config.preset, SPACE, config.sampler)
    study = optuna.create_study()
    for point in points:
        study.enqueue_trial(point)
        trial = study.ask()
        suggest(trial, SPACE, config.sampler)
        assert trial.params == pytest.approx(point)
    shape = suggest(optuna.trial.FixedTrial(points[0]), SPACE, config.sampler)
    assert shape.block_sizes[:2] == config.preset.block_sizes[:2]
    assert shape.num_steps[:2] == config.preset.num_steps[:2]
    assert shape.sampler["cfg_scale_text"] == config.sampler.cfg_scale_text
    assert shape.sampler["cfg_min_t"] == config.sampler.cfg_min_t


def test_a_preset_is_written_as_the_service_reads_it(tmp_path: Path) -> None:
    sampler = {"cfg_min_t": 0.4, "cfg_scale_text": 2.5, "truncation_factor": 0.65}
    shape = Shape((32, 64, 544), (6, 9, 9), sampler)
    path = preset_path("mine", tmp_path)
    preset = write_preset(path, shape, ["For a card: of 3,5 GB # really"])
    assert preset.name == "mine"
    assert shape_of(preset) == shape == shape_of(read_preset(path))
    assert sampler_of(compose(["model=tiny"]).sampler, preset).truncation_factor == 0.65
    assert "3,5 GB" in path.read_text()
    assert preset_path("mine", tmp_path) == path  # ours: may be written again
    write_preset(path, Shape((640,), (9,), {}), [])
    assert read_preset(path).sampler == {}


@pytest.mark.parametrize("name", ["../evil", "My preset", ""])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="preset_name"):
        preset_path(name, tmp_path)


def test_what_somebody_else_wrote_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("# A short first block.\nname: default\n")
    with pytest.raises(ConfigError, match="was not written by this program"):
        preset_path("default", tmp_path)


def test_a_folder_that_cannot_be_written_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="preset_folder"):
        preset_path("mine", tmp_path / "file")
    assert preset_path("mine", tmp_path / "new" / "folder").parent.name == "folder"


def test_a_space_upside_down_is_named() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.space\.growth"):
        Space(**{**vars(SPACE), "growth": (4.0, 1.0)})
