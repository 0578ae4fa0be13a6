"""The pictures of networks say what the networks do: shapes and counts against independent ones."""

from __future__ import annotations

import io
from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from divcolor_lib.cvae import CVAE, CVAEConfig
from divcolor_lib.errors import ConfigError
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.plots import alt_text
from divcolor_lib.plots.network import Arrow, Box, chain, cvae_network, cvae_parts, diagram, kind_of, shape_text, trace

matplotlib.use("Agg")
OURS = CVAEConfig(latent=5, width=0.25)
REFERENCE = CVAEConfig(design="reference", latent=6, width=0.0625)


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text()]


class Odd(nn.Module):
    """A layer that is used by its weight alone, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.direct = nn.Conv2d(4, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.conv2d(self.first(x), self.direct.weight, self.direct.bias))
        return self.head(x.mean((2, 3))) + self.head(x.amax((2, 3)))  # type: ignore[no-any-return]


def test_trace_notes_every_layer_in_order_also_one_used_by_its_weight_and_one_used_twice() -> None:
    net = Odd()
    steps = trace(net, lambda: net(torch.zeros(3, 1, 8, 8)))
    assert [step.name for step in steps] == ["first", "direct", "norm", "head", "head"]
    assert [step.outputs for step in steps] == [((3, 4, 4, 4),), ((3, 6, 4, 4),), ((3, 6, 4, 4),), ((3, 2),), ((3, 2),)]
    assert steps[1].inputs == ((3, 4, 4, 4),)
    assert [step.parameters for step in steps] == [40, 30, 12, 14, 14]
    assert [step.kind for step in steps[:3]] == ["conv 3×3, ↓2", "conv 1×1", "batchnorm2d"]


def test_trace_leaves_the_network_as_it_was() -> None:
    net = Odd().train()
    net.first.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trace(net, lambda: net(torch.randn(3, 1, 8, 8)))
    assert net.norm.training and not net.first.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in net.modules())
    with pytest.raises(RuntimeError):
        trace(net, lambda: net(torch.zeros(3, 2, 8, 8)))
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in net.modules())


def test_trace_of_chosen_parts_lists_every_tensor_that_left_them() -> None:
    cvae = CVAE.build(OURS)
    gray = torch.zeros(2, 1, 64, 64)
    (step,) = trace(cvae, lambda: cvae.gray_features(gray), ["gray_encoder"])
    assert step.outputs == tuple(tuple(each.shape) for each in cvae.gray_features(gray))
    assert step.shape == step.outputs[0]
    assert step.parameters == sum(each.numel() for each in cvae.get_submodule("gray_encoder").parameters())
    assert step.kind == "8 conv 3×3, ↓2"
    with pytest.raises(ConfigError, match="no part called `gray_encoders`"):
        trace(cvae, lambda: None, ["gray_encoders"])


@pytest.mark.parametrize("config", [OURS, REFERENCE])
def test_a_cvae_is_drawn_with_its_own_shapes_and_counts(config: CVAEConfig) -> None:
    cvae = CVAE.build(config)
    maps = [shape_text(each.shape) for each in cvae.eval().gray_features(torch.zeros(1, 1, 64, 64))]
    boxes, arrows = cvae_parts(cvae)
    skips = {arrow.end: arrow.label for arrow in arrows if arrow.start.startswith("gray ") and arrow.end.startswith("paint")}
    assert skips == dict(zip(("paint 4", "paint 3", "paint 2", "paint 1"), maps))
    steering = [arrow for arrow in arrows if arrow.start == "z"]
    assert len(steering) == (4 if config is OURS else 1)
    assert {arrow.start for arrow in arrows} | {arrow.end for arrow in arrows} == set(boxes)
    figure = cvae_network(cvae)
    drawn = texts(figure)
    assert all(label in drawn for label in maps)
    assert f"{sum(each.numel() for each in cvae.parameters()):,} parameters" in alt_text(figure)
    heading = next(text for text in drawn if text.startswith("gray encoder"))
    part = "gray_encoder." if config is OURS else "cond_enc_"
    count = sum(each.numel() for name, each in cvae.named_parameters() if name.startswith(part))
    assert heading.endswith(f"{count / 1e3:.0f} k parameters")


def test_the_three_parts_hold_all_parameters_of_the_published_network() -> None:
    words = alt_text(cvae_network(CVAE.build(CVAEConfig(design="reference", latent=64))))
    assert "33,368,770 parameters" in words and all(part in words for part in ("8.8 M", "13.6 M", "10.9 M"))


def test_the_flow_into_the_decoder_of_ours_is_what_its_first_block_reads() -> None:
    cvae = CVAE.build(OURS)
    z, gray = torch.zeros(1, 5), torch.zeros(1, 1, 64, 64)
    (block,) = trace(cvae, lambda: cvae.decode(z, gray), ["painter.levels.0"])
    _, arrows = cvae_parts(cvae)
    label = {(arrow.start, arrow.end): arrow.label for arrow in arrows}
    joined, skip = (int(label[pair].split("×")[0]) for pair in (("paint 1", "paint 2"), ("gray 3", "paint 2")))
    assert joined + skip == block.inputs[0][1]


def test_without_the_color_encoder_there_are_two_columns() -> None:
    boxes, arrows = cvae_parts(CVAE.build(OURS), encoder=False)
    assert {box.column for box in boxes.values()} == {0, 1}
    assert all({arrow.start, arrow.end} <= set(boxes) for arrow in arrows)


def test_a_chain_of_a_mixture_density_network() -> None:
    mdn = MDN.build(MDNConfig(inputs=(8, 4, 4), latent=3, width=0.25))
    names = ["trunk.0", "trunk.5", "mixture_head"]
    steps = trace(mdn, lambda: mdn(torch.zeros(1, 8, 4, 4)), names)
    boxes, arrows = chain(steps, column=0, row=0, texts={"mixture_head": "linear\nmixture"})
    assert [box.row for box in boxes.values()] == [0, 1, 2] and boxes["mixture_head"].text == "linear\nmixture"
    assert [(arrow.start, arrow.end, arrow.label) for arrow in arrows] == [
        ("trunk.0", "trunk.5", "16×4×4"),
        ("trunk.5", "mixture_head", "64"),
    ]
    assert [box.row for box in chain(steps, 0, 5, up=True)[0].values()] == [5, 4, 3]


def test_a_diagram_is_a_white_card_whose_words_name_every_box_and_label() -> None:
    boxes = {"a": Box("gray $G$", 0, 0, "data"), "b": Box("conv", 0, 1), "c": Box("code", 1, 1, "code")}
    arrows = [Arrow("a", "b", "1×8×8"), Arrow("b", "c", "16"), Arrow("c", "b", dashed=True)]
    before = dict(matplotlib.rcParams)
    figure = diagram(boxes, arrows, {0: "encoder\n12 k"}, "A toy")
    assert dict(matplotlib.rcParams) == before and figure.get_size_inches()[0] < 9
    words = alt_text(figure)
    assert words.startswith("A toy: 3 boxes in 2 columns. Encoder, 12 k, from the top: gray G, down 1×8×8; conv.") and words.endswith(".")
    assert "conv to code (16)" in words and "code to conv" in words
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert tuple(np.asarray(Image.open(buffer).convert("RGB"))[0, 0]) == (255, 255, 255)


def test_no_words_overlap_in_a_picture_of_either_design() -> None:
    for config in (OURS, CVAEConfig(design="reference", latent=64)):
        figure = cvae_network(CVAE.build(config))
        figure.canvas.draw()
        found = [text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_text()]
        assert not [1 for i, one in enumerate(found) for other in found[:i] if one.overlaps(other)]


def test_arrows_to_nowhere_and_unknown_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="box `b`"):
        diagram({"a": Box("a", 0, 0)}, [Arrow("a", "b")])
    with pytest.raises(ConfigError, match="unknown kind `cloud`"):
        diagram({"a": Box("a", 0, 0, "cloud")}, [])


def test_words_for_layers_and_shapes() -> None:
    assert kind_of(nn.Linear(2, 3)) == "linear"
    assert kind_of(nn.Sequential(nn.Conv2d(1, 1, 5, stride=2), nn.ReLU(), nn.Conv2d(1, 1, 3))) == "2 conv 5×5 and conv 3×3, ↓2"
    assert (shape_text((7, 2, 3)), shape_text((7, 2)), shape_text((7,))) == ("2×3", "2", "1")
