"""The learning curves of a run as a PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Training loss on the left, validation scores x 100 on the right, a dotted line where a new stage begins.

    Of several data sets the scores are the means, and each one's CIDEr is a dashed line under its name.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, scores = figure.subplots(1, 2)
    epochs = range(1, len(history) + 1)
    loss.plot(epochs, [row["loss"] for row in history], marker="o")
    loss.set(title="Training loss", xlabel="epoch", ylabel="nats a word; where self-critical, minus the reward")
    for name in ("CIDEr", "ROUGE-L", "BLEU-4"):
        scores.plot(epochs, [100 * row[name] for row in history], marker="o", label=name)
    for name in (name for name in history[-1] if name.endswith(" CIDEr")):
        # A run that goes on under another name has no such score for the epochs before.
        scores.plot(epochs, [100 * row.get(name, math.nan) for row in history], linestyle="--", label=name)
    scores.set(title="Validation scores", xlabel="epoch", ylabel="score x 100")
    scores.legend()
    for axes in (loss, scores):
        axes.grid(alpha=0.3)
        for index in range(1, len(history)):
            if history[index]["stage"] != history[index - 1]["stage"]:
                axes.axvline(index + 0.5, linestyle=":", color="grey")
    figure.savefig(path, dpi=100)
