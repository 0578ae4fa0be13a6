"""Numbers that blow up and memory that runs out: noticed, explained, and the last good checkpoint kept."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import divcolor_lib.__main__ as cli
from divcolor_lib import train
from divcolor_lib.colorize import Colorizer
from divcolor_lib.cvae import CVAEConfig
from divcolor_lib.data import TensorFields
from divcolor_lib.errors import ConfigError, TrainingError
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.runtime import generator
from divcolor_lib.train import CodeSource, FitConfig, MDNTask, Objective, Recipe, fit, read_tensors, train_colorizer
from tests.hostile import a_checkpoint, a_colorizer
from tests.test_train import TOY, Killed, Slope, Toy, assert_same, assert_same_run, toy_fields, toy_source, weights

# --- losses and gradients ---


class Odd(Toy):
    """The loss, or something else about the run, changes at one step."""

    def __init__(self, step: int, kind: str) -> None:
        super().__init__()
        self.step, self.kind = step, kind

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        terms = super().losses(first, second, noise, progress)
        if self.calls == self.step and self.kind == "infinite loss":
            terms["loss"] = terms["loss"] / 0
        if self.calls == self.step and self.kind == "endless slope":
            terms["loss"] = terms["loss"] + (terms["loss"] - terms["loss"].detach()).sqrt()  # adds 0, and 1 / 0 to the gradient
        if self.calls == self.step and self.kind == "spoiled statistics":
            self.module.layers[1].running_var = torch.full((8,), math.inf)  # training does not look at it
        return terms


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("infinite loss", "loss became inf at step 6"),
        ("endless slope", "gradient norm became (inf|nan) at step 6"),
        ("spoiled statistics", "layers.1.running_var became nan at step 6"),
    ],
)
def test_what_is_no_number_ends_the_run_before_the_checkpoint_of_that_step(kind: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"^{says} \(model\)\. Lower the learning rate.*model\.last\.safetensors, is untouched\.$"):
        fit(Odd(6, kind), toy_source(), TOY, folder=tmp_path / "a", progress=False)
    tensors, facts = read_tensors(tmp_path / "a" / "model.last.safetensors")
    assert facts["step"] == 3 and all(bool(value.isfinite().all()) for value in tensors.values())
    fit(Toy(), toy_source(), TOY, folder=tmp_path / "a", progress=False)
    fit(Toy(), toy_source(), TOY, folder=tmp_path / "b", progress=False)
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_in_the_data_is_told_from_a_rate_that_is_too_high(value: float) -> None:
    gray, ab = toy_fields(10)
    gray[3, 0, 0, 0] = value
    with pytest.raises(TrainingError, match="The batch itself holds NaN or infinities: look for them in the data"):
        fit(Toy(), TensorFields(gray, ab), TOY, progress=False)


class Blind(Slope):
    """A finite loss with a gradient of NaN, at every step, or at one."""

    def __init__(self, step: int | None = None) -> None:
        super().__init__()
        self.step = step

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        terms = super().losses(first, second, noise, progress)
        return {"loss": (self.module.p * 0).sqrt().sum()} if self.step in (None, self.calls) else terms


HALF = FitConfig(steps=80, batch=2, learning_rate=0.01, warmup=1, average=0.0, precision="fp16")


def test_half_precision_skips_a_bad_step_and_halves_its_scale(tmp_path: Path) -> None:
    task = Blind(step=2)
    fit(task, toy_source(), replace(HALF, steps=3, weight_decay=0.0), folder=tmp_path, progress=False)
    values = [value for value, _ in task.seen]
    assert values[0] != values[1] == values[2]
    assert read_tensors(tmp_path / "model.last.safetensors")[1]["scaler"]["scale"] == 2.0**15


def test_half_precision_does_not_skip_steps_for_ever() -> None:
    task = Blind()
    with pytest.raises(TrainingError, match="gradient norm became nan at step 48 "):
        fit(task, toy_source(), HALF, progress=False)
    assert float(task.module.p.detach()) == 1


# --- mixtures, flat pictures, batches of one ---


@pytest.mark.parametrize("loss", ["exact", "bound"])
def test_a_component_without_weight_does_no_harm(loss: str) -> None:
    """One component of the mixture and one representative get weight exp(-10000) = 0."""
    torch.manual_seed(0)
    mdn = MDN.build(MDNConfig(inputs=(3, 2, 2), latent=2, width=0.1, components=3, representatives=3))
    with torch.no_grad():
        mdn.mixture_head.bias[0] = mdn.representatives_head.bias[0] = -1e4
    features, codes = torch.randn(24, 3, 2, 2, generator=generator(0)), torch.randn(24, 4, generator=generator(1))
    assert float(mdn(features).mixture_distribution.probs[:, 0].detach().max()) == 0
    source = CodeSource(features, codes)
    history = fit(
        MDNTask(mdn, loss, source, 8), source, FitConfig(20, 8, warmup=1, validate_every=10, average=0.0, flip=False), progress=False
    )
    assert math.isfinite(history.best_loss) and all(bool(value.isfinite().all()) for value in mdn.state_dict().values())


def test_a_representative_without_weight_is_shown_last_and_never_sampled() -> None:
    colorizer = a_colorizer()
    with torch.no_grad():
        kept = colorizer.mdn.representatives_head.bias.clone(), colorizer.mdn.mixture_head.bias.clone()
        colorizer.mdn.representatives_head.bias[0] = colorizer.mdn.mixture_head.bias[0] = -1e4
    try:
        fields, shares = colorizer.predict(torch.zeros(1, 1, 64, 64))
        assert shares[0].tolist() == [1.0, 0.0] and bool(fields.isfinite().all())
        assert bool(colorizer.sample(torch.zeros(1, 1, 64, 64), 5, generator(0)).isfinite().all())
        shown = colorizer.colorize(torch.zeros(9, 9, dtype=torch.uint8), n=3)
        assert shown.probabilities[0] == 1.0
    finally:
        with torch.no_grad():
            colorizer.mdn.representatives_head.bias.copy_(kept[0])
            colorizer.mdn.mixture_head.bias.copy_(kept[1])


def recipe(design: str, batch: int, **objective: Any) -> Recipe:
    stage = FitConfig(steps=2, batch=batch, warmup=1, validate_every=2, average=0.5, flip=False)
    reference = design == "reference"
    return Recipe(
        "toy",
        CVAEConfig(design=design, latent=2, width=0.1),
        MDNConfig(
            design="reference" if reference else "heads",
            latent=2,
            width=0.1,
            components=2,
            representatives=2,
            scale=0.1 if reference else None,
        ),
        Objective(reference=reference, **objective),
        stage,
        stage,
        stage,
        regressor_width=0.1,
        mdn_loss="reference" if reference else "exact",
    )


def faces(flat: int, count: int = 24) -> TensorFields:
    """Noise, and so many pictures of one gray without any variance."""
    gray = torch.rand(count, 1, 64, 64, generator=generator(0)) * 2 - 1
    ab = torch.rand(count, 2, 64, 64, generator=generator(1)) * 0.2 - 0.1
    gray[:flat], ab[:flat] = 0.0, 0.1
    return TensorFields(gray, ab)


def test_pictures_without_variance_among_others_are_trained_on() -> None:
    fields = faces(flat=12)
    trained = train_colorizer(recipe("unet", 8, mahalanobis=0.1, gradient=0.1, weighting="zhang"), fields, fields, progress=False)
    assert all(math.isfinite(history.best_loss) for history in trained.histories.values())
    assert trained.mdn is not None
    found = Colorizer(trained.cvae, trained.mdn).colorize(torch.full((30, 40), 119, dtype=torch.uint8), n=1)
    assert found.images.shape == (1, 30, 40, 3)


def test_nothing_but_one_gray_is_explained() -> None:
    fields = faces(flat=24)
    with pytest.raises(TrainingError, match=r"gradient norm became inf at step 1 \(regression\)\. The batch is one flat gray"):
        train_colorizer(recipe("unet", 8), fields, fields, progress=False)


def test_a_batch_of_one_trains_our_networks() -> None:
    trained = train_colorizer(recipe("unet", 1), faces(0), faces(0, 2), progress=False)
    assert all(math.isfinite(history.best_loss) for history in trained.histories.values())


def test_a_batch_of_one_that_batch_norm_cannot_take_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"batch norm has no spread to measure in a batch of 1 \(mdn\)\. Use a larger batch"):
        train_colorizer(recipe("reference", 1), faces(0), faces(0, 2), progress=False)


# --- memory ---


class Card(Toy):
    """A card whose memory holds `most` images; from `step` on, its owner uses it for something else too."""

    def __init__(self, most: int, step: int = 1, kill: int | None = None) -> None:
        super().__init__(kill)
        self.most, self.step, self.sizes = most, step, []  # type: ignore[var-annotated]

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        if round(progress * TOY.steps) + 1 >= self.step and len(first) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.sizes.append(len(first))
        return super().losses(first, second, noise, progress)


def test_a_batch_that_does_not_fit_is_worked_through_in_two_halves_from_then_on() -> None:
    card = Card(most=2, step=6)
    with pytest.warns(UserWarning, match=r"^model: .* does not hold a batch of 4 at step 6; .* two halves\. Batch statistics") as caught:
        history = fit(card, toy_source(), TOY, progress=False)
    assert len(caught) == 1
    assert history.halved_at == 6 and history.steps == TOY.steps
    assert card.sizes == [4] * 5 + [2] * 2 * (TOY.steps - 5)


def test_a_batch_that_fits_is_never_halved(tmp_path: Path) -> None:
    card = Card(most=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = fit(card, toy_source(), TOY, folder=tmp_path / "card", progress=False)
        fit(Toy(), toy_source(), TOY, folder=tmp_path / "toy", progress=False)
    assert history.halved_at == 0 and card.sizes == [4] * TOY.steps
    assert_same_run(tmp_path / "card", tmp_path / "toy")


class Plain:
    """A mean over the batch without batch norm, dropout and noise: halves change its gradient by rounding alone."""

    def __init__(self, most: int, where: str = "forward") -> None:
        torch.manual_seed(3)
        self.module = nn.Conv2d(1, 2, 3, padding=1)
        self.most, self.where = most, where

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        if self.where == "forward" and len(first) > self.most:
            raise torch.cuda.OutOfMemoryError
        loss = (self.module(first) - second).square().mean()
        if self.where == "backward" and len(first) > self.most:
            # The weight's gradient is there already when the memory runs out at that of the bias.
            loss = loss + 1e3 * self.module.weight.sum()
            self.module.bias.register_hook(out_of_memory)
        return {"loss": loss, "largest": first.max()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {"loss": 1.0}


def out_of_memory(gradient: Tensor) -> Tensor:
    raise torch.cuda.OutOfMemoryError


@pytest.mark.parametrize("batch", [4, 5])
@pytest.mark.filterwarnings("ignore:model. the graphics card's memory")
def test_two_halves_have_the_gradient_and_the_terms_of_the_whole(batch: int) -> None:
    config = FitConfig(steps=20, batch=batch, learning_rate=0.01, warmup=1, average=0.0)
    whole, halves = Plain(most=9), Plain(most=3)
    history = fit(whole, toy_source(), config, progress=False)
    other = fit(halves, toy_source(), config, progress=False)
    assert other.halved_at == 1
    for one, two in zip(whole.module.parameters(), halves.module.parameters()):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    assert other.train[-1]["loss"] == pytest.approx(history.train[-1]["loss"], rel=1e-4)


@pytest.mark.filterwarnings("ignore:model. the graphics card's memory")
def test_half_a_gradient_that_was_left_when_the_memory_ran_out_is_dropped() -> None:
    config = FitConfig(steps=1, batch=4, learning_rate=0.01, warmup=1, average=0.0, clip=1e9)
    seen: list[Tensor] = []

    class Watched(Plain):
        def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
            if self.where == "backward" and len(first) <= self.most:
                seen.extend(parameter.grad is None for parameter in self.module.parameters())
                self.module.bias._backward_hooks = None  # the memory is free again
                self.where = "nowhere"
            return super().losses(first, second, noise, progress)

    whole, halves = Plain(most=9), Watched(most=2, where="backward")
    fit(whole, toy_source(), config, progress=False)
    assert fit(halves, toy_source(), config, progress=False).halved_at == 1
    assert seen == [True, True]
    for one, two in zip(whole.module.parameters(), halves.module.parameters()):
        torch.testing.assert_close(one, two)


@pytest.mark.filterwarnings("ignore:model. the graphics card's memory")
def test_a_resumed_run_remembers_that_it_works_in_halves(tmp_path: Path) -> None:
    fit(Card(most=2, step=6), toy_source(), TOY, folder=tmp_path / "whole", progress=False)
    with pytest.raises(Killed):
        fit(Card(most=2, step=6, kill=20), toy_source(), TOY, folder=tmp_path / "killed", progress=False)
    roomy = Card(most=99)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was told before
        history = fit(roomy, toy_source(), TOY, folder=tmp_path / "killed", progress=False)
    assert history.halved_at == 6 and set(roomy.sizes) == {2}
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.filterwarnings("ignore:model. the graphics card's memory")
def test_when_half_a_batch_does_not_fit_either_the_run_ends_and_its_checkpoint_stays(tmp_path: Path) -> None:
    card = Card(most=1, step=6)
    before = None

    def look(step: int, module: nn.Module) -> None:
        nonlocal before
        before = weights(card.module)

    with pytest.raises(TrainingError, match=r"does not hold half a batch at step 6 \(model\)\. Use a smaller batch .* is untouched"):
        fit(card, toy_source(), TOY, folder=tmp_path, progress=False, on_step=look)
    assert read_tensors(tmp_path / "model.last.safetensors")[1]["step"] == 3
    parameters = dict(card.module.named_parameters())
    assert before is not None
    assert_same({name: value for name, value in before.items() if name in parameters}, {name: p.detach() for name, p in parameters.items()})


def test_one_image_that_does_not_fit_ends_the_run() -> None:
    with pytest.raises(TrainingError, match=r"does not hold one image at step 1 .*No checkpoint was written yet"):
        fit(Card(most=0), toy_source(), replace(TOY, batch=1), progress=False)


def test_processes_that_train_together_do_not_halve(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that halved alone would wait for the others forever."""
    run = train._Run(Toy(), toy_source(), TOY, None, "model", {})
    monkeypatch.setattr(train.parallel, "processes", lambda: 2)
    with pytest.raises(TrainingError, match=r"does not hold its part of a batch at step 1 .*or more cards"):
        run._halve(4, torch.cuda.OutOfMemoryError())
    assert run.history.halved_at == 0


@pytest.mark.parametrize("content", [b"", b"no checkpoint", a_checkpoint()], ids=["empty", "text", "a colorizer"])
def test_the_command_does_not_go_on_from_what_is_no_run(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_training_data", lambda *_: ({"train": faces(0), "val": faces(0, 2)}, {}, []))
    monkeypatch.setitem(cli.RECIPES, "portraits", recipe("unet", 8))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "regression.last.safetensors").write_bytes(content)
    assert cli.main(["train", "--out", str(tmp_path / "x.safetensors"), "--run", str(tmp_path / "run"), "--profile", "cpu"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and "regression.last.safetensors" in lines[0]
    assert (tmp_path / "run" / "regression.last.safetensors").read_bytes() == content and not (tmp_path / "x.safetensors").exists()


def test_the_command_tells_of_a_full_card_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")

    monkeypatch.setattr(cli, "_training_data", full)
    assert cli.main(["train", "--out", str(tmp_path / "x.safetensors"), "--run", str(tmp_path)]) == 1
    assert capsys.readouterr().err == r"error: the graphics card's memory is full: CUDA out of memory.\nTried to allocate 2.00 GiB" + "\n"
