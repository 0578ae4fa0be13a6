"""Pictures of networks, drawn from the networks: boxes for layers, arrows with the shape of what flows along them.

`trace` runs a network once and notes what each layer gave. `chain` turns such notes into a column of boxes, `Box` and `Arrow`
say what else is there, and `diagram` draws it all. `cvae_network` puts a whole conditional VAE together; it reads every
number in the picture from the network that it is given.

>>> from torch import nn
>>> net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(64, 2))
>>> for step in trace(net, lambda: net(torch.zeros(1, 1, 8, 8))):
...     print(step.name, "|", step.kind, "|", shape_text(step.shape), "|", step.parameters)
0 | conv 3×3, ↓2 | 4×4×4 | 40
1 | flatten | 64 | 0
2 | linear | 2 | 130
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..cvae import CVAE, ReferenceCVAE, UNetCVAE
from ..errors import ConfigError
from ..runtime import evaluating
from . import PALETTE, described, styled

#: Face color and line style of each kind of box; the words in a box tell its kind as well.
KINDS = {"data": ("#ffffff", "--"), "layer": ("#d9ebf7", "-"), "code": ("#fbe3d3", "-")}
BOX_WIDTH, BOX_HEIGHT, COLUMN, ROW = 1.62, 0.62, 2.74, 1.12


# --- what a network does ---


@dataclass(frozen=True)
class Step:
    """One layer at work.

    Attributes:
        name: its dotted name in the network.
        kind: what it is, in a few words, such as `conv 5×5, ↓2` (a convolution with stride 2).
        inputs: the shape of each tensor that entered, with the batch.
        outputs: the shape of each tensor that left; a list of maps counts as so many tensors.
        parameters: how many numbers training may change in it.
    """

    name: str
    kind: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    parameters: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first tensor that left, with the batch."""
        return self.outputs[0]


def trace(module: nn.Module, call: Callable[[], object], names: Sequence[str] | None = None) -> list[Step]:
    """Run `call` and return what the layers of `module` gave, in the order in which they finished.

    The network is in evaluation mode meanwhile and has its own modes back afterwards; no gradient is kept.

    Args:
        call: runs the network, for instance `lambda: cvae.decode(z, gray)`.
        names: the submodules to note, by dotted name; without it all that have no submodules of their own (the leaves).
            A convolution or linear layer whose weight is used directly, without calling the layer, is noted as well.

    Raises:
        ConfigError: a name is unknown.
    """
    known = dict(module.named_modules())
    if unknown := [name for name in names or () if name not in known]:
        raise ConfigError(f"the network has no part called `{unknown[0]}`", "trace", f"Its parts: {', '.join(list(known)[1:])}.")
    chosen = {name: known[name] for name in names} if names is not None else _leaves(known)
    steps: list[Step] = []
    running: list[nn.Module] = []

    def note(name: str, layer: nn.Module, given: object, made: object) -> None:
        count = sum(parameter.numel() for parameter in layer.parameters())
        steps.append(Step(name, kind_of(layer), tuple(_shapes(given)), tuple(_shapes(made)), count))

    def hook(name: str) -> Callable[[nn.Module, Any, object], None]:
        def finished(layer: nn.Module, given: Any, made: object) -> None:
            running.remove(layer)
            note(name, layer, given, made)

        return finished

    class Direct(TorchFunctionMode):
        """Notices convolutions and linear maps with a layer's weight outside of that layer."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            if function in (torch.conv2d, torch.nn.functional.linear) and len(args) > 1 and id(args[1]) in owners:
                name, layer = owners[id(args[1])]
                if layer not in running:
                    note(name, layer, args[0], made)
            return made

    owners = {id(layer.weight): (name, layer) for name, layer in chosen.items() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    handles = [layer.register_forward_hook(hook(name)) for name, layer in chosen.items()]
    handles += [layer.register_forward_pre_hook(lambda layer, _: running.append(layer)) for layer in chosen.values()]
    try:
        with evaluating(module), torch.no_grad(), Direct():
            call()
    finally:
        for handle in handles:
            handle.remove()
    return steps


def _leaves(known: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    return {name: layer for name, layer in known.items() if name and not list(layer.children())}


def _shapes(value: object) -> Iterator[tuple[int, ...]]:
    if isinstance(value, Tensor):
        yield tuple(value.shape)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _shapes(part)
    elif isinstance(value, Mapping):
        yield from _shapes(list(value.values()))


def kind_of(layer: nn.Module) -> str:
    """Return in a few words what a layer is; of a part with several convolutions, how many and of which size."""
    if isinstance(layer, nn.Linear):
        return "linear"
    convolutions = [each for each in layer.modules() if isinstance(each, nn.Conv2d)]
    if not convolutions:
        return type(layer).__name__.lower()
    sizes = {f"conv {each.kernel_size[0]}×{each.kernel_size[1]}": None for each in convolutions}
    stride = max(int(each.stride[0]) for each in convolutions)
    count = f"{len(convolutions)} " if len(convolutions) > 1 else ""
    return count + " and ".join(sizes) + (f", ↓{stride}" if stride > 1 else "")


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape without its batch, such as `128×32×32`."""
    return "×".join(str(size) for size in shape[1:]) or "1"


# --- drawing ---


@dataclass(frozen=True)
class Box:
    """A box of a diagram.

    Attributes:
        text: what stands in it; two short lines at most.
        column, row: where its middle is, counted from 0 at the upper left; fractions lie between.
        kind: `data` (dashed, white), `layer` or `code`.
    """

    text: str
    column: float
    row: float
    kind: str = "layer"


@dataclass(frozen=True)
class Arrow:
    """An arrow from one box to another.

    Attributes:
        start, end: names of boxes.
        label: what flows along it, such as a `shape_text`.
        dashed: for what steers rather than flows.
        elbow: the arrow leaves to the right, runs up or down beside the column of `end`, and enters it from the right.
    """

    start: str
    end: str
    label: str = ""
    dashed: bool = False
    elbow: bool = False


def chain(
    steps: Sequence[Step], column: float, row: float, texts: Mapping[str, str] | None = None, up: bool = False, kind: str = "layer"
) -> tuple[dict[str, Box], list[Arrow]]:
    """Return a column of boxes, one for each step, and the arrows between them with the shapes that flow.

    Args:
        steps: in the order of the flow, as `trace` gives them.
        column, row: where the first box is; the next ones follow below, or above with `up`.
        texts: the words of a box, by the step's name; without an entry the step's kind.
    """
    words = texts or {}
    boxes = {
        step.name: Box(words.get(step.name, step.kind), column, row + (-index if up else index), kind) for index, step in enumerate(steps)
    }
    arrows = [Arrow(first.name, second.name, shape_text(first.shape)) for first, second in itertools.pairwise(steps)]
    return boxes, arrows


def diagram(
    boxes: Mapping[str, Box], arrows: Sequence[Arrow], headings: Mapping[float, str] | None = None, what: str = "A network"
) -> Figure:
    """Draw boxes and arrows, the label of every arrow beside it.

    Args:
        headings: words above a column, by its number.
        what: the beginning of the alt text, which goes on with every box and every arrow.

    Raises:
        ConfigError: an arrow names a box that is not there, or a box is of an unknown kind.
    """
    for arrow in arrows:
        for name in (arrow.start, arrow.end):
            if name not in boxes:
                raise ConfigError(f"an arrow names the box `{name}`, which is not there", "diagram", f"Boxes: {', '.join(boxes)}.")
    for name, box in boxes.items():
        if box.kind not in KINDS:
            raise ConfigError(f"the box `{name}` is of the unknown kind `{box.kind}`", "diagram", f"Use one of {', '.join(KINDS)}.")
    columns, rows = ([getattr(box, side) for box in boxes.values()] for side in ("column", "row"))
    wide = (max(columns) - min(columns)) * COLUMN + BOX_WIDTH + 0.2
    right = 0.45 if any(arrow.elbow and boxes[arrow.end].column == max(columns) for arrow in arrows) else 0.0
    lines = max((text.count("\n") + 1 for text in (headings or {}).values()), default=0)
    above, high = 0.24 * lines, (max(rows) - min(rows)) * ROW + BOX_HEIGHT + 0.15
    with styled():
        figure = plt.figure(figsize=(wide + right, high + above))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(min(columns) * COLUMN - BOX_WIDTH / 2 - 0.1, max(columns) * COLUMN + BOX_WIDTH / 2 + 0.1 + right))
        axes.set(ylim=(-max(rows) * ROW - BOX_HEIGHT / 2 - 0.08, -min(rows) * ROW + BOX_HEIGHT / 2 + 0.07 + above))
        axes.axis("off")
        for box in boxes.values():
            _draw_box(axes, box)
        for arrow in arrows:
            _draw_arrow(axes, boxes[arrow.start], boxes[arrow.end], arrow)
        for column, text in (headings or {}).items():
            top = -min(rows) * ROW + BOX_HEIGHT / 2 + 0.1
            axes.text(column * COLUMN, top, text, ha="center", va="bottom", fontsize=13, fontweight="bold", linespacing=1.15)
    return described(figure, _told(boxes, arrows, headings or {}, what))


def _draw_box(axes: Axes, box: Box) -> None:
    face, line = KINDS[box.kind]
    x, y = box.column * COLUMN, -box.row * ROW
    corner = (x - BOX_WIDTH / 2 + 0.06, y - BOX_HEIGHT / 2 + 0.06)
    shape = FancyBboxPatch(
        corner,
        BOX_WIDTH - 0.12,
        BOX_HEIGHT - 0.12,
        boxstyle="round,pad=0.06",
        facecolor=face,
        edgecolor="#333333",
        linestyle=line,
        linewidth=1.3,
        zorder=3,
    )
    axes.add_patch(shape)
    axes.text(x, y, box.text, ha="center", va="center", fontsize=13, linespacing=1.15, zorder=4)


def _draw_arrow(axes: Axes, start: Box, end: Box, arrow: Arrow) -> None:
    points = _route(start, end, arrow.elbow)
    line, color = ("--", PALETTE[1]) if arrow.dashed else ("-", "#333333")
    for (x0, y0), (x1, y1) in itertools.pairwise(points[:-1]):
        axes.plot([x0, x1], [y0, y1], line, color=color, linewidth=1.4, zorder=1, solid_capstyle="round")
    tip = {"arrowstyle": "-|>", "color": color, "linewidth": 1.4, "linestyle": line, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 13}
    axes.annotate("", points[-1], points[-2], arrowprops=tip, zorder=1)
    if not arrow.label:
        return
    (x0, y0), (x1, y1) = points[-2:]
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    flat = abs(y1 - y0) < 0.1
    below = flat and x1 < x0  # above it there may be an elbow
    side = "center" if not flat else "top" if below else "bottom"
    white = None if flat else {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
    lift = 0.02 if not flat else -0.07 if below else 0.05
    axes.text(x, y + lift, arrow.label, ha="center", va=side, fontsize=12, bbox=white, zorder=2)


def _route(start: Box, end: Box, elbow: bool) -> list[tuple[float, float]]:
    """The corners of an arrow, from the edge of one box to the edge of the other, in inches."""
    (x0, y0), (x1, y1) = ((box.column * COLUMN, -box.row * ROW) for box in (start, end))
    half_width, half_height = BOX_WIDTH / 2, BOX_HEIGHT / 2
    if elbow:
        beside = x1 + half_width + 0.36
        low = 0.17 if y1 > y0 else -0.17
        return [(x0 + half_width, y0 + low), (beside, y0 + low), (beside, y1 - low / 2), (x1 + half_width, y1 - low / 2)]
    if start.column == end.column:
        sign = 1 if y1 > y0 else -1
        return [(x0, y0 + sign * half_height), (x1, y1 - sign * half_height)]
    side = 1 if x1 > x0 else -1
    return [(x0 + side * half_width, y0), (x1 - side * half_width, y1)]


def _told(boxes: Mapping[str, Box], arrows: Sequence[Arrow], headings: Mapping[float, str], what: str) -> str:
    def plain(text: str) -> str:
        for sign, word in (("$", ""), ("\\", ""), ("\n", ", "), ("↓", "down by "), ("↑", "up by ")):
            text = text.replace(sign, word)
        return text

    parts, told = [], set()
    for column in sorted({box.column for box in boxes.values()}):
        names = sorted((name for name, box in boxes.items() if box.column == column), key=lambda name: boxes[name].row)
        words = plain(boxes[names[0]].text)
        for upper, lower in itertools.pairwise(names):
            between = next((arrow for arrow in arrows if {arrow.start, arrow.end} == {upper, lower} and not arrow.elbow), None)
            if between is not None:
                told.add(between)
                words += f", {'down' if between.start == upper else 'up'} {plain(between.label)}".rstrip()
            words += f"; {plain(boxes[lower].text)}"
        heading = plain(headings.get(column, f"column {column:g}"))
        parts.append(f"{heading[:1].upper()}{heading[1:]}, from the top: {words}.")
    across = [
        f"{plain(boxes[arrow.start].text)} to {plain(boxes[arrow.end].text)}" + (f" ({plain(arrow.label)})" if arrow.label else "")
        for arrow in arrows
        if arrow not in told
    ]
    return " ".join(
        [f"{what}: {len(boxes)} boxes in {len(parts)} columns.", *parts, *([f"Across: {', '.join(across)}."] if across else [])]
    )


# --- the conditional VAE ---


def cvae_network(cvae: CVAE) -> Figure:
    """Draw a conditional VAE: gray encoder, decoder with its skips, color encoder and code, with all shapes and parameter counts."""
    boxes, arrows = cvae_parts(cvae)
    counts = {part: sum(step.parameters for step in steps) for part, steps in _parts_of(cvae).items()}
    headings: dict[float, str] = {
        column: f"{part}\n{_millions(counts[part])}" for column, part in enumerate(("gray encoder", "decoder", "color encoder"))
    }
    total = sum(parameter.numel() for parameter in cvae.parameters())
    what = f"The conditional VAE of the {cvae.config.design} design with a code of {cvae.config.latent} and {total:,} parameters"
    return diagram(boxes, arrows, headings, what)


def cvae_parts(cvae: CVAE, encoder: bool = True) -> tuple[dict[str, Box], list[Arrow]]:
    """Return the boxes and arrows of `cvae_network`, for pictures that put more around it.

    Column 0 is the gray encoder (`gray`, `gray 1` to `gray 4`), column 1 the decoder (`z`, `paint 1` from the coarsest on, `ab`), and
    column 2 the color encoder (`color`, `color 1` to `color 4`, `posterior`).

    Args:
        encoder: False leaves the color encoder out, as when a photograph is colored.
    """
    levels = _parts_of(cvae)
    ours = isinstance(cvae, UNetCVAE)
    boxes: dict[str, Box] = {"gray": Box("gray image $G$", 0, 0, "data")}
    arrows: list[Arrow] = []
    _pyramid(boxes, arrows, "gray", levels["gray encoder"][-4:], 0, shape=(1, 1, 64, 64))
    boxes["z"] = Box("code $z$", 1, 5, "code")
    painters = levels["decoder"]
    for index, step in enumerate(painters, start=1):
        last = index == len(painters)
        if ours and index == 1:
            words = "linear, join"
        elif last:
            words = f"{step.kind}\nshuffle ↑2" if ours else f"↑2\n{step.kind}, tanh"
        else:
            words = f"↑2, join\n{step.kind}" if index > 1 else f"join\n{step.kind}"
        boxes[f"paint {index}"] = Box(words, 1, 5 - index, "layer")
        flow = str(cvae.config.latent) if index == 1 else shape_text(painters[index - 2].shape)
        if ours and index == 2:  # the code's linear map gives 4x4 maps, which join the coarsest gray map
            coarsest = levels["gray encoder"][-1].shape
            flow = shape_text((1, coarsest[1] + painters[0].shape[1] // 16, 4, 4))
        arrows.append(Arrow("z" if index == 1 else f"paint {index - 1}", f"paint {index}", flow))
        if index <= 4:
            arrows.append(Arrow(f"gray {5 - index}", f"paint {index}", shape_text(levels["gray encoder"][-index].shape)))
        if ours and 1 < index < 5:
            arrows.append(Arrow("z", f"paint {index}", dashed=True, elbow=True))
    boxes["ab"] = Box("color field $f$", 1, -1, "data")
    arrows.append(Arrow(f"paint {len(painters)}", "ab", "2×64×64"))
    if encoder:
        boxes["color"] = Box("colors $C$" + (" and $G$" if ours else ""), 2, 0, "data")
        _pyramid(boxes, arrows, "color", levels["color encoder"][:4], 2, shape=(1, 3 if ours else 2, 64, 64))
        last_step = levels["color encoder"][4]
        boxes["posterior"] = Box("linear\nto $\\mu$, $\\log\\sigma^2$", 2, 5)
        arrows.append(Arrow("color 4", "posterior", shape_text(levels["color encoder"][3].shape)))
        arrows.append(Arrow("posterior", "z", f"2×{last_step.shape[1] // 2}"))
    return boxes, arrows


def _pyramid(boxes: dict[str, Box], arrows: list[Arrow], name: str, steps: Sequence[Step], column: float, shape: tuple[int, ...]) -> None:
    before, flow = name, shape_text(shape)
    for index, step in enumerate(steps, start=1):
        shuffled = step.inputs[0][-1] < shape[-1] and index == 1
        boxes[f"{name} {index}"] = Box(f"shuffle ↓2\n{step.kind}" if shuffled else step.kind, column, index)
        arrows.append(Arrow(before, f"{name} {index}", flow))
        before, flow = f"{name} {index}", shape_text(step.shape)


def _parts_of(cvae: CVAE) -> dict[str, list[Step]]:
    """The levels of each part, as steps: the words of their convolutions, the shapes that leave the level, all its parameters."""
    ab, gray, z = torch.zeros(1, 2, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, cvae.config.latent)
    device = next(cvae.parameters()).device

    def run() -> None:
        cvae.encode(ab.to(device), gray.to(device))
        cvae.decode(z.to(device), gray.to(device))

    groups: dict[str, list[tuple[str, ...]]]
    if isinstance(cvae, ReferenceCVAE):
        groups = {
            "gray encoder": [(f"cond_enc_conv{level}", f"cond_enc_bn{level}") for level in range(1, 5)],
            "decoder": [(f"dec_conv{level}", f"dec_bn{level}") for level in range(1, 5)] + [("dec_conv5",)],
            "color encoder": [(f"enc_conv{level}", f"enc_bn{level}") for level in range(1, 5)] + [("enc_fc1",)],
        }
    else:
        groups = {
            "gray encoder": [(f"gray_encoder.levels.{level}",) for level in range(4)],
            "decoder": [("painter.to_map",), *((f"painter.levels.{level}",) for level in range(3)), ("painter.to_ab",)],
            "color encoder": [*((f"color_encoder.levels.{level}",) for level in range(4)), ("posterior",)],
        }
    names = [name for group in groups.values() for part in group for name in part]
    steps = {step.name: step for step in trace(cvae, run, names)}
    return {
        part: [
            Step(group[0], steps[group[0]].kind, steps[group[0]].inputs, steps[group[-1]].outputs, sum(steps[n].parameters for n in group))
            for group in levels
        ]
        for part, levels in groups.items()
    }


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M parameters" if count >= 1e6 else f"{count / 1e3:.0f} k parameters"
