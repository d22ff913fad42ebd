"""The paper's five figures, over runs that were trained; accuracy under FGSM always in both readings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from landscape.report.curve import COLOURS
from landscape.report.figures import FORMATS
from landscape.report.style import freeze_layout, new_figure, save, style
from landscape.study.paper import (
    READINGS,
    AttackedModel,
    Best,
    Examples,
    LayerWidths,
    LearningCurve,
    Subject,
)

BLUE, ORANGE, GREEN = COLOURS[:3]
RED, BLACK = "#B2182B", "#000000"
# How the readings of FGSM are told apart in every figure.
DASHES: Mapping[str, tuple[int, tuple[int, ...]]] = {"published": (0, (4, 2)), "exact": (0, ())}
WORDS = {"published": "as published (float32)", "exact": "exact gradients"}
_NAMES = {"adam": "Adam", "sgd": "SGD"}
_DOT: dict[str, Any] = {"linestyle": "none", "marker": ".", "markersize": 2.2, "alpha": 0.4, "markeredgewidth": 0}


def save_figure(
    figure: Figure, name: str, directory: str | os.PathLike[str], formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write a figure in all formats, to ``directory/name.format``; call inside ``style()``."""
    freeze_layout(figure)
    return [save(figure, Path(directory, f"{name}.{suffix}"), suffix) for suffix in formats]


def settings(subject: Subject) -> str:
    """Optimizer, learning rate and batch size of a run."""
    return f"{_NAMES[subject.optimizer]} ($\\gamma={subject.learning_rate:g}$, $B={subject.batch_size}$)"


def draw_learning_curve(curve: LearningCurve) -> Figure:
    """Figures 1 and 2: loss, step norm, clean accuracy and both accuracies under FGSM, against epochs."""
    figure = new_figure(5.2, 5.0)
    loss, step, accuracy = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1, 1.3))
    _draw_losses(loss, curve)
    _draw_step_norms(step, curve)
    epochs, metrics = curve.metrics["epoch"], curve.metrics
    mark = _mark(epochs)
    accuracy.plot(epochs, 100 * metrics["clean_accuracy"], color=RED, marker=mark, label="clean test data")
    for reading in READINGS:
        shares = 100 * metrics[f"fgsm_accuracy_{reading}"]
        words = f"FGSM, {WORDS[reading]}"
        accuracy.plot(epochs, shares, color=GREEN, linestyle=DASHES[reading], marker=mark, label=words)
    accuracy.set(ylim=(0, 101), xlabel="epoch", ylabel="accuracy (%)", xlim=(0, max(epochs[-1], 1)))
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
    accuracy.legend(loc="best", frameon=False)
    figure.suptitle(f"{settings(curve.subject)}, seed {curve.subject.seed}", fontsize=8)
    return figure


def _draw_losses(axes: Axes, curve: LearningCurve) -> None:
    positive = curve.batch_loss > 0
    axes.plot(curve.positions[positive], curve.batch_loss[positive], color=BLUE, zorder=2, **_DOT)
    epochs = curve.metrics["epoch"]
    axes.plot(epochs, curve.metrics["train_loss"], color=BLUE, marker=_mark(epochs), zorder=3)
    zeros = len(positive) - int(positive.sum())
    hidden = f"; {zeros} batch losses of exactly 0 are not shown" if zeros else ""
    axes.set_title(f"points: single batches; line: all training data{hidden}", loc="left")
    axes.set(yscale="log", ylabel="loss (nat)")


def _draw_step_norms(axes: Axes, curve: LearningCurve) -> None:
    moved = curve.step_norm > 0
    if moved.any():
        axes.plot(curve.positions[moved], curve.step_norm[moved], color=BLACK, zorder=2, **_DOT)
        epochs, medians = _medians(curve.positions, curve.step_norm)
        axes.plot(epochs, medians, color=BLACK, marker=_mark(epochs), zorder=3)
        axes.set_title("points: single steps; line: median of an epoch", loc="left")
    else:  # of a thinned run only what was measured is left
        axes.plot(curve.metrics["epoch"], curve.metrics["step_norm"], color=BLACK, marker=".")
        axes.set_title("last step of each epoch", loc="left")
    axes.set(yscale="log", ylabel=r"$\|\theta^k-\theta^{k-1}\|$")


def _mark(points: Sequence[float] | np.ndarray) -> str:
    """The marker of a line: a single point would not be seen without."""
    return "o" if len(points) == 1 else ""


def _medians(positions: np.ndarray, values: np.ndarray) -> tuple[list[float], list[float]]:
    """Median over each epoch, at its middle."""
    epochs = np.ceil(positions).astype(int)
    numbers = sorted(set(epochs.tolist()))
    return [n - 0.5 for n in numbers], [float(np.median(values[epochs == n])) for n in numbers]


def draw_layer_widths(widths: LayerWidths) -> Figure:
    """Figure 3: best accuracies against outputs of the first dense layer; points are seeds, lines their means."""
    figure = new_figure(4.2, 3.0)
    axes = figure.subplots()
    sizes = [point.hidden for point in widths.points]
    for reading in READINGS:
        _draw_seeds(axes, widths, reading, "robust", GREEN, f"FGSM, {WORDS[reading]}")
    _draw_seeds(axes, widths, "published", "accuracy", RED, "clean test data")
    axes.set(xscale="log", ylim=(0, 101), xlabel="outputs of the first dense layer", ylabel="best accuracy (%)")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FixedFormatter([str(size) for size in sizes]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(loc="best", frameon=False)
    seeds = sorted({len(point.best["published"]) for point in widths.points})
    counts = " or ".join(map(str, seeds))
    axes.set_title(f"{settings(widths.subject)}, {widths.epochs} epochs, {counts} seeds", loc="left")
    return figure


def _draw_seeds(axes: Axes, widths: LayerWidths, reading: str, quantity: str, colour: str, label: str) -> None:
    values = [_percents(point.best[reading], quantity) for point in widths.points]
    sizes = [point.hidden for point in widths.points]
    filled = colour if reading == "exact" or quantity == "accuracy" else "none"
    for size, some in zip(sizes, values, strict=True):
        axes.plot([size] * len(some), some, "o", color=colour, markersize=3, markerfacecolor=filled, zorder=3)
    dashes = DASHES[reading] if quantity == "robust" else DASHES["exact"]
    axes.plot(sizes, [float(np.mean(some)) for some in values], color=colour, linestyle=dashes, label=label)


def _percents(best: Sequence[Best], quantity: str) -> list[float]:
    return [100 * getattr(each, quantity) for each in best]


def draw_accuracy_over_radius(models: Sequence[AttackedModel]) -> Figure:
    """Figure 4: accuracy under FGSM against ε; few epochs are blue, many orange.

    Left: SGD after few epochs and after many. Right: Adam after few, SGD after many.
    """
    figure = new_figure(7.0, 3.2)
    panels = figure.subplots(1, 2, sharey=True)
    late = [model for model in models if model.role == "late"]
    for axes, optimizer in zip(panels, ("sgd", "adam"), strict=True):
        early = [model for model in models if model.role == "early" and model.subject.optimizer == optimizer]
        for model in [*early, *late]:
            _draw_radii(axes, model)
        axes.set(xlim=(0, 1), ylim=(0, 101), xlabel=r"$\varepsilon$")
        if axes.lines:
            axes.legend(loc="upper right", frameon=False, handlelength=1.5)
        axes.axvline(0.3, color="0.45", linewidth=0.6, linestyle=(0, (1, 1.5)), zorder=1)
    panels[0].set_ylabel("accuracy under FGSM (%)")
    keys = [Line2D([], [], color="0.3", linestyle=DASHES[reading]) for reading in READINGS]
    figure.legend(
        keys, [WORDS[reading] for reading in READINGS], loc="outside lower center", ncols=2, frameon=False
    )
    return figure


def _draw_radii(axes: Axes, model: AttackedModel) -> None:
    colour = {"early": BLUE, "late": ORANGE}[model.role]
    for reading in READINGS:
        shares = [100 * share for share in model.accuracy[reading]]
        axes.plot(model.radii, shares, color=colour, linestyle=DASHES[reading], linewidth=1.2)
    axes.plot([], [], color=colour, label=f"{settings(model.subject)}, epoch {model.epoch}")


def draw_examples(examples: Examples) -> Figure:
    """Figure 5: images, and what FGSM makes of them on each network, with the decision above; red if wrong."""
    count, rows = len(examples.labels), 1 + len(examples.attacked)
    figure = new_figure(1.6 + 0.62 * count, 0.85 * rows + 0.25)
    grid = figure.subplots(rows, count, squeeze=False)
    _draw_images(grid[0], "original", examples.originals, examples.labels, examples.labels)
    for line, attacked in zip(grid[1:], examples.attacked, strict=True):
        text = f"{settings(attacked.subject)}\nepoch {attacked.epoch}\n{WORDS[attacked.reading]}"
        _draw_images(line, text, attacked.images, attacked.decisions, examples.labels)
    figure.suptitle(rf"FGSM, $\varepsilon={examples.eps:g}$; above each image: the decision", fontsize=8)
    return figure


def _draw_images(
    line: Sequence[Axes], text: str, images: np.ndarray, decisions: np.ndarray, labels: np.ndarray
) -> None:
    for axes, image, decision, label in zip(line, images, decisions, labels, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(str(decision), color=BLACK if decision == label else RED, pad=1.5)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
    line[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)


__all__ = [
    "draw_accuracy_over_radius",
    "draw_examples",
    "draw_layer_widths",
    "draw_learning_curve",
    "save_figure",
    "settings",
    "style",
]
