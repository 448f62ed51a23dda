from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import picture
from benchmarks.picture import BEGIN, END, block, insert, main
from benchmarks.record import Record, RecordError, Row
from benchmarks.results import RESULTS, Kept, load, table

ROOT = Path(__file__).parents[2]
MAX_PICTURE_BYTES = 120_000
CPU = {
    "cpu": "Intel(R) Xeon(R) CPU E5-2690 v4 @ 2.60GHz",
    "cores": 2,
    "gpu": None,
    "torch": "2.13.0",
    "commit": "0123456789",
    "changes": None,
}
GPU = {**CPU, "gpu": "NVIDIA H100 80GB HBM3", "gpus": 1, "driver": "570.1", "commit": "abcdef0123"}

Make = Callable[..., Kept]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Keep a record: ``rows`` are (metric, values, factors)."""

    def make(name, *rows, machine=CPU, created="2026-01-01", **common) -> Kept:
        factors = {"model": "tiny", "dtype": "float32", "device": "cpu", **common}
        made = [
            Row(metric, value, "s", "lower", i, {**factors, **own})
            for metric, values, own in rows
            for i, value in enumerate(values)
        ]
        record = Record.of(name, made, seed=0, config={"model": {"name": "tiny"}})
        record = replace(record, machine=machine, created=created)
        number = len(list(tmp_path.glob("*.json")))
        return Kept(record.write(tmp_path, f"{name}-{number}"), record)

    return make


def latency(make: Make, preset: str, ttfb: list[float], **more) -> Kept:
    new = ("ttfb_s", [9.0], {"voice": "new"})
    known = ("ttfb_s", ttfb, {"voice": "cached"})
    return make("latency", new, known, ("rtf", [0.25, 0.5, 0.3], {}), preset=preset, **more)


def everything(make: Make) -> None:
    """One record of each kind, of two machines."""
    latency(make, "low", [0.2, 0.21, 0.22])
    latency(make, "default", [0.3, 0.31, 0.35])
    on_gpu = {"machine": GPU, "device": "cuda", "model": "base", "dtype": "bfloat16"}
    latency(make, "default", [0.04, 0.05, 0.045], **on_gpu)
    first = [
        ("ttfb_s", [4.0, 4.2], {"way": "ours", "voice_seconds": 10.0}),
        ("ttfb_s", [10.0, 10.5], {"way": "usual", "voice_seconds": 10.0}),
        ("ttfb_s_ratio", [0.4, 0.4], {"voice_seconds": 10.0}),
    ]
    make("first_sound", *first, model="base", weights="random", dtype="bfloat16")
    loads = []
    for count, starved in ((1, 0.0), (2, 0.0), (4, 1.5), (8, 0.0)):
        own = {"load": "real_time", "listeners": count}
        loads += [("ttfb_s", [0.2 * count] * 3, own), ("audio_per_s", [1.0], own)]
        loads += [("starved_s", [starved], own), ("refused", [0.0], own)]
        loads.append(("newcomer_ttfb_s", [0.225 * count], own))
    make("throughput", *loads, ("audio_per_s", [3.5], {"load": "flat_out"}), preset="default")
    make("memory", ("peak_resident", [3 * 2**30], {}))
    step = {"component": "dit_step", "size": 32, "guided": True}
    parts = [("component_s", [0.01], step), ("flop_per_s", [5e9], step)]
    make("components", *parts, ("peak_flop_per_s", [1e10], {"of": "model"}))
    words = ("word_error_pocketsphinx_slots", [0.0, 0.25], {})
    make("quality", words, ("speaker_similarity", [0.8, 0.9], {}), preset="default")
    held_out = (("default", [0.3, 0.4]), ("tuned", [0.2, 0.2]))
    make("tune", *(("held_out_cost", costs, {"way": way}) for way, costs in held_out))
    gpu = [("ttfb_s", [0.03], {"compile": "full"}), ("whole_s", [0.25], {"compile": "full"})]
    gpu += [("whole_audio_s", [29.7], {"compile": "full"})]
    gpu += [("sustained_listeners", [80.0], {"compile": "full"})]
    make("gpu", *gpu, machine=GPU, device="cuda", model="base", dtype="bfloat16")


def test_each_figure_stands_beside_its_hardware_commit_and_file(make: Make, tmp_path) -> None:
    everything(make)
    lines = table(load(tmp_path)).splitlines()
    found = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    assert "A: 2 cores of Intel Xeon E5-2690 v4, PyTorch 2.13.0, commit 0123456." in lines
    assert "B: H100 80GB HBM3, PyTorch 2.13.0, driver 570.1, commit abcdef0." in lines
    low = found["small model, preset low: first sound, real-time factor"]
    assert (
        "| 210 ms (p95 219 ms), 0.30 | A | [latency-0](benchmarks/results/latency-0.json) |" in low
    )
    real = found["real model, bfloat16, preset default: first sound, real-time factor"]
    assert "| 45 ms (p95 50 ms), 0.30 | B |" in real
    text = "\n".join(lines)
    for figure in (
        "4.1 s and 10.2 s: 0.40 of its time",
        "| 2, first sound 400 ms, a newcomer's 450 ms |",  # four heard gaps, eight waited
        "| 3.5 |",
        "| 3.00 GiB |",
        "10.0 ms, 50 % of the machine's best matrix product",
        "word error 0.125 (0.000 ... 0.250), speaker similarity 0.85",
        "| -0.150 (-0.200 ... -0.100), below 0 is better |",
        "30 ms, 0.25 s for 30 s of audio, 80",
    ):
        assert figure in text


def test_of_records_alike_only_the_newest_counts(make: Make, tmp_path) -> None:
    latency(make, "low", [0.9], created="2026-01-01")
    newest = latency(make, "low", [0.2], created="2026-02-01")
    other = latency(make, "low", [0.5], created="2026-01-02", machine={**CPU, "cores": 64})
    assert load(tmp_path) == [other, newest]


def test_records_of_other_programs_are_left_out(make: Make, tmp_path) -> None:
    make("forecast", ("ttfb_s", [1.0], {}))
    low = latency(make, "low", [0.2])
    assert load(tmp_path) == [low]


def test_sources_with_changes_of_their_own_are_told(make: Make, tmp_path) -> None:
    latency(make, "low", [0.2], machine={**CPU, "changes": "ab12"})
    assert "commit 0123456+." in table(load(tmp_path))


def test_the_program_writes_one_picture_and_the_table_into_the_readme(
    make: Make, tmp_path, capsys
) -> None:
    everything(make)
    readme, target = tmp_path / "README.md", tmp_path / "docs" / "results.png"
    readme.write_text(f"# Echo\n{BEGIN}\nold figures\n{END}\nThe end.\n")
    command = [f"--{n}={p}" for n, p in (("results", tmp_path), ("picture", target))]
    assert main([*command, f"--readme={readme}"]) == 0
    assert target.stat().st_size < MAX_PICTURE_BYTES
    width, height = Image.open(target).size
    assert width > 900
    assert height > 600  # two rows of two
    text = readme.read_text()
    assert "old figures" not in text
    assert text.startswith(f"# Echo\n{BEGIN}\n![")
    assert text.endswith(f"{END}\nThe end.\n")
    assert table(load(tmp_path)) in text
    assert table(load(tmp_path)) in capsys.readouterr().out
    assert main([*command, f"--readme={readme}"]) == 0
    assert readme.read_text() == text


def test_one_record_alone_makes_a_picture_too(make: Make, tmp_path) -> None:
    latency(make, "low", [0.2])
    picture.draw(load(tmp_path), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_an_error(text: str) -> None:
    with pytest.raises(RecordError, match="once each"):
        insert(text, "new")


def test_records_that_have_nothing_to_draw_are_an_error(make: Make, tmp_path, capsys) -> None:
    make("memory", ("peak_resident", [2.0**30], {}))
    assert main([f"--results={tmp_path}", f"--picture={tmp_path / 'a.png'}", "--readme="]) == 2
    assert "no record of latency" in capsys.readouterr().err


def test_a_folder_without_records_is_an_error(tmp_path, capsys) -> None:
    assert main([f"--results={tmp_path}", "--readme="]) == 2
    assert "holds no records" in capsys.readouterr().err


def test_the_readme_shows_the_records_that_are_kept_and_nothing_else(tmp_path) -> None:
    """After measuring again: python -m benchmarks.picture."""
    kept = load(RESULTS)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert insert(readme, block(kept, "docs/results.png")) == readme
    if kept:
        picture.draw(kept, tmp_path / "results.png")
        assert (tmp_path / "results.png").stat().st_size < MAX_PICTURE_BYTES
        shown = Image.open(ROOT / "docs" / "results.png")
        assert shown.size == Image.open(tmp_path / "results.png").size
