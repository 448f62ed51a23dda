from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import Plan, chip_of, find_sustained, main
from benchmarks.listening import Crowd, Line
from benchmarks.record import Record, read_record

SMALL = [
    *("--repeats", "2", "--warmup", "1", "--listeners", "2", "--requests", "1"),
    *("--spread-seconds", "0", "--part-repeats", "1", "--part-seconds", "0"),
    *("--block-latents", "8"),
]


def run(device: str, out, settings: list[str], *compile_modes: str) -> Record:
    flags = [
        "--device",
        device,
        "--out",
        str(out),
        "--name",
        "it",
        "--compile",
        ",".join(compile_modes),
    ]
    assert main([*flags, *SMALL, *settings, "sampler.nonstream_block_sizes=[20]"]) == 0
    return read_record(out / "it.json")


def check(record: Record, *modes: str) -> None:
    assert record.levels("compile") == list(modes)
    for mode in modes:
        alone = [r for r in record.rows if r.metric == "ttfb_s" and "load" not in r.factors]
        assert len([r for r in alone if r.factors["compile"] == mode]) == 2
        assert len(record.values("whole_s", compile=mode)) == 3
        assert record.values("sustained_listeners", compile=mode)[0] in (0, 2)
        assert record.values("flop_per_s", compile=mode, component="dit_step", guided=True)
        assert record.values("peak_byte_per_s", compile=mode, of="model")


def test_the_whole_program_runs_on_toy_sizes(tmp_path, toy_settings, capsys) -> None:
    settings = toy_settings("preset.block_sizes=[8,12]", "preset.num_steps=[2,2]")
    record = run("cpu", tmp_path, settings, "off")
    check(record, "off")
    shown = capsys.readouterr().out
    assert "asked of one H100" in shown
    assert "dit_step guided" in shown
    assert record.config["compile"]["off"]["model"]["device"] == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_it_runs_on_cuda_compiled_or_not(tmp_path, toy_settings) -> None:
    settings = toy_settings("preset.block_sizes=[8,12]", "preset.num_steps=[2,2]")
    record = run("cuda", tmp_path, settings, "off", "full")
    check(record, "off", "full")
    assert record.values("peak_device", compile="full")[0] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_without_cuda_it_refuses_before_it_loads_anything(capsys) -> None:
    assert main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_a_gap_ends_the_search_for_listeners() -> None:
    class Tiring:
        """Streams smoothly to the first five, then with a gap."""

        asked = 0

        def speak(self, line: Line):
            self.asked += 1
            yield 0.02
            if self.asked > 5:
                Crowd().stop.wait(0.1)
            yield 0.02

    plan = Plan(
        device="cpu",
        compile=("off",),
        listeners=(2, 3, 4, 5),
        requests=1,
        spread_s=0.0,
        repeats=1,
        warmup=0,
        reference_seconds=1.0,
        text_chars=60,
        text_seconds=(1.0,),
        parts=None,
        seed=0,
    )
    record = Record.of("gpu", find_sustained(Tiring(), plan, {}), seed=0, config={})
    assert record.levels("listeners") == [2, 3, 4]
    assert record.values("sustained_listeners") == [3]


def test_chips_are_known_by_name() -> None:
    assert chip_of("NVIDIA H200") == (989.5e12, 4.8e12)
    assert chip_of("NVIDIA L40S") != chip_of("NVIDIA L4")
    assert chip_of("NVIDIA Unheard-of 9") is None
    assert chip_of(None) is None
