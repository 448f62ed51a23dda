"""What the kept records say: each figure with the machine, the commit and the file behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.memory import GIB
from benchmarks.record import Factor, Record, read_record
from benchmarks.timing import mean_interval, median, percentile

RESULTS = ROOT / "benchmarks" / "results"
CONFIDENCE = 0.9
PROMPT_S = 1.0  # to the first sound; who waits longer in a queue is not served
MODELS = {"tiny": "small model", "base": "real sizes"}
# Quality: metric, words, decimals.
HEARD = (
    ("word_error_pocketsphinx_slots", "word error {}", 3),
    ("word_error_whisper", "word error (Whisper) {}", 3),
    ("speaker_similarity", "speaker similarity {}", 2),
    ("mcd_best_db", "{} dB from many steps", 1),
)


@dataclass(frozen=True)
class Kept:
    """A record in its file."""

    path: Path
    record: Record

    @property
    def name(self) -> str:
        return self.record.benchmark

    def setting(self, group: str, key: str) -> object:
        """One of the settings in force; None where there are several, or none."""
        return self.record.config.get(group, {}).get(key)

    def factor(self, name: str) -> Factor | None:
        """What all rows have for ``name``, by the first one that has it."""
        return next((r.factors[name] for r in self.record.rows if name in r.factors), None)

    @property
    def hardware(self) -> str:
        """``2 cores of an Intel Xeon Processor``, or the GPU if that did the work."""
        m = self.record.machine
        device = str(self.factor("device") or self.setting("model", "device") or "auto")
        if m.get("gpu") and not device.startswith("cpu"):
            count = m.get("gpus") or 1
            gpu = str(m["gpu"]).removeprefix("NVIDIA ")
            return f"{count} x {gpu}" if count > 1 and self.name == "throughput" else gpu
        cpu = re.sub(r"\((?:R|TM)\)|CPU|@.*", "", str(m.get("cpu"))).split()
        cores = m.get("cores")
        return f"{cores} core{'' if cores == 1 else 's'} of {' '.join(cpu)}"

    @property
    def commit(self) -> str:
        """Short; with a ``+`` if the sources had changes of their own."""
        commit = str(self.record.machine.get("commit") or "unknown")[:7]
        return commit + ("+" if self.record.machine.get("changes") else "")

    @property
    def preset(self) -> str:
        return str(self.factor("preset") or self.setting("preset", "name"))

    @property
    def model(self) -> str:
        """In words, with what else is not the default."""
        name = str(self.factor("model") or self.setting("model", "name"))
        weights = self.factor("weights") or self.setting("model", "weights")
        dtype = self.factor("dtype") or self.setting("model", "dtype")
        words = [MODELS.get(name, name) if weights == "random" or name != "base" else "real model"]
        words += [str(dtype)] if dtype not in (None, "float32") else []
        words += [str(q)] if (q := self.factor("quantize")) not in (None, "none", "None") else []
        compiled = None if self.name == "gpu" else self.factor("compile")  # that has several
        words += [f"compile {compiled}"] if compiled not in (None, "auto", "off") else []
        return ", ".join(words)


def load(folder: Path = RESULTS) -> list[Kept]:
    """All records of ``folder``, oldest first; of several alike only the newest.

    Alike: the same program, machine, model and preset. Records of programs that have no figures
    here are left out. Raises :class:`RecordError` for a file that is no record.
    """
    every = (Kept(path, read_record(path)) for path in sorted(folder.glob("*.json")))
    kept = sorted(
        (each for each in every if each.name in _ways()), key=lambda each: each.record.created
    )
    newest = {
        (each.name, each.hardware, each.model, each.preset, _kind(each)): each for each in kept
    }
    return [each for each in kept if each in newest.values()]


def _kind(kept: Kept) -> tuple[object, ...]:
    """What else sets records of one program apart: the metrics of a ``--whole`` run, a server."""
    own = {"first_sound": ("ttfb_s", "total_s")}.get(kept.name, ())
    return (*(bool(kept.record.values(metric)) for metric in own), kept.factor("url"))


def table(kept: Sequence[Kept]) -> str:
    """Every figure in Markdown; machines and commits below. Empty for no records."""
    places = list(dict.fromkeys(_place(each) for each in kept))
    lines = ["| what | measured | where | record |", "| --- | --- | --- | --- |"]
    for each in kept:
        where = _letter(places.index(_place(each)))
        file = f"[{each.path.stem}](benchmarks/results/{each.path.name})"
        lines += [f"| {what} | {value} | {where} | {file} |" for what, value in figures(each)]
    notes = [f"{_letter(i)}: {place}." for i, place in enumerate(places)]
    if any(" ... " in line for line in lines):
        notes.append(f"(a ... b): the {100 * CONFIDENCE:g} % interval of the mean.")
    return "\n".join((*lines, "", *notes)) if kept else ""


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _place(kept: Kept) -> str:
    m = kept.record.machine
    software = [f"PyTorch {m.get('torch')}"]
    software += [f"driver {m['driver']}"] if m.get("driver") and m.get("gpu") else []
    return f"{kept.hardware}, {', '.join(software)}, commit {kept.commit}"


def figures(kept: Kept) -> Iterator[tuple[str, str]]:
    """(what, value with unit) of a record."""
    yield from _ways()[kept.name](kept)


def _ways() -> dict[str, Callable[[Kept], Iterator[tuple[str, str]]]]:
    return {
        "latency": _latency,
        "first_sound": _first_sound,
        "throughput": _throughput,
        "memory": _memory,
        "components": _components,
        "quality": _quality,
        "tune": _tune,
        "gpu": _gpu,
    }


def first_sounds(kept: Kept) -> list[float]:
    """Seconds to the first audio of a listener who is alone and has a known voice."""
    return [
        row.value
        for row in kept.record.rows
        if row.metric == "ttfb_s"
        and row.factors.get("voice", "cached") == "cached"
        and not {"load", "way"} & set(row.factors)
    ]


def crowds(kept: Kept) -> list[tuple[int, dict[str, Factor]]]:
    """(listeners, factors) of every load of listeners who play what they hear, fewest first."""
    loads = {
        int(row.factors["listeners"]): {"load": "real_time", "listeners": row.factors["listeners"]}
        for row in kept.record.rows
        if row.metric == "audio_per_s" and row.factors.get("load") == "real_time"
    }
    return sorted(loads.items())


def _latency(kept: Kept) -> Iterator[tuple[str, str]]:
    ttfb, rtf = first_sounds(kept), kept.record.values("rtf")
    yield (
        f"{kept.model}, preset {kept.preset}: first sound, real-time factor",
        f"{_ms(median(ttfb))} (p95 {_ms(percentile(ttfb, 95))}), {median(rtf):.2f}",
    )


def _first_sound(kept: Kept) -> Iterator[tuple[str, str]]:
    for metric, what, ours, usual, ratio, voice in against(kept.record):
        yield (
            f"{kept.model}, voice of {voice:g} s: {what}, ours and the usual way ({metric})",
            f"{ours:.1f} s and {usual:.1f} s: {ratio:.2f} of its time",
        )


def against(record: Record) -> Iterator[tuple[str, str, float, float, float, float]]:
    """(metric, in words, our seconds, the usual way's, ratio, seconds of voice); medians."""
    names = {"ttfb_s": "first sound", "total_s": "all of it"}
    for metric, words in names.items():
        for voice in record.levels("voice_seconds", f"{metric}_ratio"):
            pick = {"voice_seconds": voice}
            ours, usual = (median(record.values(metric, **pick, way=w)) for w in ("ours", "usual"))
            ratio = median(record.values(f"{metric}_ratio", **pick))
            yield metric, words, ours, usual, ratio, float(voice)


def _throughput(kept: Kept) -> Iterator[tuple[str, str]]:
    record = kept.record
    served = list(takewhile(lambda crowd: _served(record, crowd[1]), crowds(kept)))
    if served:
        count, load = served[-1]
        ttfb = median(record.values("ttfb_s", **load))
        newcomers = record.values("newcomer_ttfb_s", **load)
        told = f", a newcomer's {_ms(median(newcomers))}" if newcomers else ""
        yield (
            f"{kept.model}, preset {kept.preset}: listeners at once, served without a gap",
            f"{count}, first sound {_ms(ttfb)}{told}",
        )
    flat = record.values("audio_per_s", load="flat_out")
    if flat:
        yield (
            f"{kept.model}, preset {kept.preset}: seconds of audio in a second",
            f"{max(flat):.1f}",
        )


def _served(record: Record, load: dict[str, Factor]) -> bool:
    lost = (*record.values("starved_s", **load), *record.values("refused", **load))
    return not any(lost) and median(record.values("ttfb_s", **load)) <= PROMPT_S


def _memory(kept: Kept) -> Iterator[tuple[str, str]]:
    peaks = [
        f"{max(values) / GIB:.2f} GiB{where}"
        for metric, where in (("peak_resident", ""), ("peak_device", " on the device"))
        if (values := kept.record.values(metric))
    ]
    yield f"{kept.model}: peak of memory, whole process", ", ".join(peaks)


def _components(kept: Kept) -> Iterator[tuple[str, str]]:
    record = kept.record
    size = min((r.factors["size"] for r in record.rows if "guided" in r.factors), default=None)
    if size is None:
        return
    pick: dict[str, Factor] = {"component": "dit_step", "size": size, "guided": True}
    flop, peak = median(record.values("flop_per_s", **pick)), record.values("peak_flop_per_s")
    yield (
        f"{kept.model}: a guided step of {size} latents",
        f"{1e3 * median(record.values('component_s', **pick)):.1f} ms, "
        f"{100 * flop / max(peak):.0f} % of the machine's best matrix product",
    )


def _quality(kept: Kept) -> Iterator[tuple[str, str]]:
    parts = []
    for metric, words, decimals in HEARD:
        values = kept.record.values(metric)
        if values:
            mean, low, high = mean_interval(values, CONFIDENCE)
            shown = f"{mean:.{decimals}f} ({low:.{decimals}f} ... {high:.{decimals}f})"
            parts.append(words.format(shown))
    yield f"{kept.model}, preset {kept.preset}: without listening", ", ".join(parts)


def _tune(kept: Kept) -> Iterator[tuple[str, str]]:
    base, tuned = kept.record.levels("way", "held_out_cost")
    before, after = (kept.record.values("held_out_cost", way=way) for way in (base, tuned))
    change = [b - a for a, b in zip(before, after, strict=True)]
    mean, low, high = mean_interval(change, CONFIDENCE)
    yield (
        f"{kept.model}: cost of a tuned preset less that of preset {base}, held-out sentences",
        f"{mean:+.3f} ({low:+.3f} ... {high:+.3f}), below 0 is better",
    )


def _gpu(kept: Kept) -> Iterator[tuple[str, str]]:
    record = kept.record
    for mode in record.levels("compile"):
        rows = [row for row in record.rows if row.factors.get("compile") == mode]
        alone = [r.value for r in rows if r.metric == "ttfb_s" and "load" not in r.factors]
        whole = median(record.values("whole_s", compile=mode))
        audio = median(record.values("whole_audio_s", compile=mode))
        count = max(record.values("sustained_listeners", compile=mode), default=0)
        yield (
            f"{kept.model}, compile {mode}: first sound, a whole reply, listeners without a gap",
            f"{_ms(median(alone))}, {whole:.2f} s for {audio:.0f} s of audio, {count:.0f}",
        )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def by_series(kept: Iterable[Kept]) -> dict[str, list[Kept]]:
    """Records of one machine and model together, under a name for people."""
    series: dict[str, list[Kept]] = {}
    for each in kept:
        series.setdefault(f"{each.model}, {each.hardware}", []).append(each)
    return series
