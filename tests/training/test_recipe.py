"""The whole recipe on toy sizes, and the parts of it that could fail silently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from echo.config.training import compose_training
from echo.errors import ConfigError
from echo.models.codec import CodecConfig, EncoderTransformerConfig
from echo.models.dit import DiTConfig
from echo.models.load import load_codec, load_dit, load_pca
from echo.modules.conv import Snake
from echo.spec import HOP
from echo.training.__main__ import main
from echo.training.batches import TAIL, Batches, BatchSettings
from echo.training.checkpoints import load_state, save_state
from echo.training.codec import encode_continuous, faster_snakes_, new_codec
from echo.training.corpus_files import SpokenCorpus
from echo.training.dit import DitLoss, draw_times, new_dit
from echo.training.features import fit_features, raw_features
from echo.training.guidance import phone_targets
from echo.training.loop import Schedule, TrainingLoop
from echo.training.rvq import fit_pca, fit_quantizer_

CODEC = CodecConfig(
    encoder_dim=2,
    encoder_rates=(4, 4, 4, 8),
    latent_dim=32,
    decoder_dim=32,
    decoder_rates=(8, 4, 4, 2, 2),
    encoder_transformer=EncoderTransformerConfig(1, 2, 32, 32),
    q_layers=1,
    q_heads=2,
    q_head_dim=8,
    q_ffn=32,
    codebook_size=16,
    semantic_codebook_size=32,
)
DIT = DiTConfig(
    latent_size=16,
    model_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=48,
    text_model_size=16,
    text_num_layers=1,
    text_num_heads=2,
    text_intermediate_size=32,
    speaker_model_size=16,
    speaker_num_layers=1,
    speaker_num_heads=2,
    speaker_intermediate_size=32,
    timestep_embed_size=16,
    adaln_rank=4,
)


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a finished smoke run."""
    folder = tmp_path_factory.mktemp("work")
    assert main(["all", "size=smoke", f"work_dir={folder}"]) == 0
    return folder


def test_the_smoke_run_makes_weights_that_the_service_loads(work: Path) -> None:
    repo = str(work / "export")
    dit = load_dit(repo, device="cpu", dtype=torch.float32)
    codec = load_codec(repo, device="cpu", dtype=torch.float32)
    pca = load_pca(repo, device="cpu", dit=dit.config, codec=codec.config)
    z_q, codes = codec.encode(torch.randn(1, 1, 3 * HOP) * 0.1)
    assert codes.shape == (1, 10, 3)
    audio = codec.decode(pca.from_latent(pca.to_latent(z_q.transpose(1, 2))).transpose(1, 2))
    assert audio.shape == (1, 1, 3 * HOP)
    assert audio.isfinite().all()


def test_the_smoke_run_is_judged_at_every_stage(work: Path) -> None:
    judged = json.loads((work / "judged.json").read_text())
    assert list(judged) == ["decoder", "codec", "dit"]
    assert judged["dit"]["total"]["slots"]["teacher"] < 0.5  # the judge itself understands


def test_every_stage_leaves_its_curve(work: Path) -> None:
    for stage in ("encoder", "decoder", "dit"):
        assert (work / stage / "curve.csv").read_text().startswith("step,minutes,loss")
        assert (work / stage / "curve.png").stat().st_size > 1000


def test_a_finished_stage_does_not_train_again(work: Path) -> None:
    before = (work / "dit" / "curve.csv").read_text()
    assert main(["dit", "size=smoke", f"work_dir={work}"]) == 0
    assert (work / "dit" / "curve.csv").read_text() == before


def test_a_stage_names_the_one_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "size=smoke", f"work_dir={tmp_path}"]) == 2
    assert "python -m echo.training dit" in capsys.readouterr().err


def test_every_size_composes_and_unknown_keys_fail() -> None:
    for size in ("cpu", "gpu", "smoke"):
        assert compose_training(size).dit.loop.batch > 0
    with pytest.raises(ConfigError, match="nonsense"):
        compose_training("cpu", ["nonsense=1"])
    with pytest.raises(ConfigError, match="cpu"):
        compose_training("huge")


def test_a_checkpoint_is_split_into_parts_and_comes_back(tmp_path: Path) -> None:
    state = {"weights": torch.arange(10_000.0), "step": 3}
    save_state(tmp_path / "c", state, part_bytes=10_000)
    parts = list((tmp_path / "c").glob("state.*"))
    assert len(parts) > 3
    assert all(part.stat().st_size <= 10_000 for part in parts)
    found = load_state(tmp_path / "c")
    assert found is not None
    assert torch.equal(found["weights"], state["weights"])


def test_a_crash_between_the_renames_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    save_state(tmp_path / "c", {"step": 1})
    (tmp_path / "c").rename(tmp_path / "c.old")
    assert load_state(tmp_path / "c") == {"step": 1}
    assert load_state(tmp_path / "none") is None


class Line(nn.Module):
    """One weight to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 3))

    def loss(self, step: int, done: float) -> Mapping[str, Tensor]:
        return {"loss": (self.weight - torch.randn(3, 3) - 1).square().mean()}


def schedule(steps: int, slice_minutes: float = 0.0) -> Schedule:
    return Schedule(
        steps=steps,
        minutes=1e6,
        slice_minutes=slice_minutes,
        learning_rate=0.1,
        warmup_steps=2,
        checkpoint_seconds=1e6,
        ema=0.9,
    )


def test_a_run_cut_into_slices_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = TrainingLoop(tmp_path / "a", Line(), schedule(7), seed=1, say=quiet)
    assert whole.run(whole.module.loss)  # type: ignore[operator, arg-type]
    slices = 0
    while True:
        slices += 1
        part = TrainingLoop(tmp_path / "b", Line(), schedule(7, 1e-9), seed=1, say=quiet)
        if part.run(part.module.loss):  # type: ignore[operator, arg-type]
            break
    assert slices == 7
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, part.module.state_dict()[name])
    for name, value in whole.averaged.values.items():
        assert torch.equal(value, part.averaged.values[name])


def test_the_faster_snake_has_the_same_values_and_gradients() -> None:
    x, grad = torch.randn(2, 4, 9), torch.randn(2, 4, 9)
    results = []
    for fast in (False, True):
        snake = Snake(4)
        with torch.no_grad():
            snake.alpha.copy_(torch.tensor([0.3, 1.0, 2.0, -1.5])[None, :, None])
        if fast:
            faster_snakes_(snake)
        x_own = x.clone().requires_grad_(True)
        y = snake(x_own)
        y.backward(grad)
        results.append((y, x_own.grad, snake.alpha.grad))
    for plain, quick in zip(*results, strict=True):
        torch.testing.assert_close(plain, quick, rtol=1e-4, atol=1e-5)


def test_features_do_not_look_ahead() -> None:
    audio = torch.randn(1, 4 * HOP) * 0.1
    later = audio.clone()
    later[:, 3 * HOP :] = 0.0
    before, after = raw_features(audio, 31), raw_features(later, 31)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


def test_features_have_the_power_of_the_encoder_s_output() -> None:
    pieces = [torch.randn(20 * HOP) * scale for scale in (0.01, 0.1, 0.3)]
    features = fit_features(pieces, CODEC.latent_dim - 1)
    z = features(pieces[0][None])
    made = encode_continuous(new_codec(CODEC, 0), pieces[0][None, None]).transpose(1, 2)
    assert z.shape == made.shape
    for vectors in (z, made):
        torch.testing.assert_close(vectors.square().mean(2), torch.ones(1, 20), rtol=1e-3, atol=0)


def test_fitted_codebooks_keep_most_of_what_they_are_given() -> None:
    torch.manual_seed(0)
    z = torch.randn(800, 6) @ torch.randn(6, CODEC.latent_dim) + 2.0
    codec = new_codec(CODEC, 0).requires_grad_(False)
    lost = fit_quantizer_(codec, z, iterations=8, seed=0, say=quiet)
    z_q, _ = codec.quantizer.encode(z.T[None])
    measured = (z_q[0].T - z).square().sum(1).mean() / z.var(dim=0).sum()
    assert lost == pytest.approx(float(measured), rel=1e-3)
    assert lost < 0.2


def test_latents_of_the_fitted_pca_have_unit_variance_and_lead_back() -> None:
    torch.manual_seed(0)
    z = torch.randn(500, 8) @ torch.randn(8, 32) + 1.0
    pca = fit_pca(z, 8)
    latents = pca.to_latent(z[None])
    assert float(latents.var(dim=1).mean()) == pytest.approx(1.0, rel=1e-3)
    torch.testing.assert_close(pca.from_latent(latents)[0], z, rtol=1e-3, atol=1e-3)


def test_a_latent_belongs_to_the_phone_at_its_middle() -> None:
    targets = phone_targets([0.0, 0.31, 0.42], [0.3, 0.32, 0.8], [5, 6, 7], 9, 10.0)
    assert targets == [5, 5, 5, 6, 7, 7, 7, 7, -1]


def test_training_times_lean_to_the_noise() -> None:
    torch.manual_seed(0)
    times = draw_times(4000, 0.5)
    assert 0.0 < float(times.min()) < 0.05
    assert float(times.max()) < 1.0
    assert float((times > 0.75).float().mean()) > 0.4


@pytest.fixture
def batches(work: Path) -> Batches:
    corpus = SpokenCorpus(work / "corpus" / "train")
    torch.manual_seed(0)
    latents = {u.index: torch.randn(-(-u.samples // HOP), 16) for u in corpus.utterances}
    settings = BatchSettings(
        batch=6,
        batch_latents=600,
        max_latents=280,
        reference_latents=32,
        text_dropout=0.2,
        speaker_dropout=0.2,
        prefix_share=0.5,
    )
    return Batches(corpus, latents, settings, patch=4)


def test_batches_end_in_exact_zeros_and_are_the_same_for_the_same_seed(batches: Batches) -> None:
    plain = next(b for b in (batches.draw(s, 1.0) for s in range(99)) if b.prefix is None)
    for i in range(len(plain.target)):
        end = int((plain.target[i] != 0).any(dim=1).nonzero().max()) + 1
        assert end < plain.target.shape[1]
        assert (plain.weight[i, : end + TAIL] == 1.0).all()
        assert (plain.targets[i, end:] == -1).all()
    again, other = batches.draw(5, 1.0), batches.draw(5, 1.0)
    assert torch.equal(again.target, other.target)
    assert torch.equal(again.ids, other.ids)


def test_prefix_batches_hand_over_where_the_prefix_ends(batches: Batches) -> None:
    cut = next(b for b in (batches.draw(s, 1.0) for s in range(99)) if b.prefix is not None)
    assert cut.prefix is not None
    assert cut.prefix.shape[1] % 4 == 0
    assert (cut.prefix[:, cut.start_pos :] == 0).all()
    assert cut.start_pos > 0


def test_the_guided_bytes_are_those_of_the_text(batches: Batches) -> None:
    for seed in range(20):
        batch = batches.draw(seed, 1.0)
        known = batch.targets.max(dim=1).values
        assert (known < (batch.ids != 0).sum(1) + 1).all()


def test_a_dit_learns_one_batch(batches: Batches) -> None:
    model = new_dit(DIT, 0)
    loss = DitLoss(
        model,
        batches,
        seed=0,
        high_noise=0.5,
        guide_weight=0.3,
        guide_until=1.0,
        guide_layers=(0, 1),
        bf16=False,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses, guides = [], []
    for _ in range(30):
        torch.manual_seed(0)
        values = loss(0, 0.5)
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        losses.append(float(values["flow"]))
        guides.append(float(values["guide"]))
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    assert np.mean(guides[-3:]) < 0.9 * guides[0]


def test_training_goes_on_from_an_export(work: Path, tmp_path: Path) -> None:
    start = work / "export"
    shutil.copytree(work / "corpus", tmp_path / "corpus")
    settings = ["size=smoke", f"work_dir={tmp_path}", f"start={start}", "dit.loop.steps=1"]
    for stage in ("features", "dit"):
        assert main([stage, *settings]) == 0
    went_on = load_state(tmp_path / "dit" / "checkpoint")
    assert went_on is not None
    before = load_dit(str(start), device="cpu", dtype=torch.float32)
    for name, value in before.named_parameters():
        assert float((went_on["module"][name] - value).abs().max()) < 0.01
    assert (tmp_path / "features.safetensors").read_bytes() == (
        start / "features.safetensors"
    ).read_bytes()
