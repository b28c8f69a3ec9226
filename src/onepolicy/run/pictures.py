"""Pictures that are not curves over steps. matplotlib is drawn off screen and imported when needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def calibration(path: str | Path, bins: Sequence[tuple[float, float, int]]) -> None:
    """A calibration curve as an image file.

    bins: (mean probability said, share that was right, how many), by rising probability.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.5, 4.5))
    axes.plot([0.5, 1.0], [0.5, 1.0], color="#999999", linewidth=1, label="calibrated")
    said, right, counts = zip(*bins)
    most = max(counts)
    axes.plot(said, right, color="#0b6e4f", label="model")
    axes.scatter(said, right, s=[10 + 90 * count / most for count in counts], color="#0b6e4f")
    axes.set(xlabel="probability given to the favourite", ylabel="share of favourites that were preferred")
    axes.set(xlim=(0.48, 1.02), ylim=(min(0.48, *right) - 0.02, 1.02))
    axes.legend(loc="upper left")
    axes.set_title("Dots by number of pairs", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
