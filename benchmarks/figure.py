"""Draw the JSON of `scdask bench --peers --json`: how fast the others are, where scdask is 1."""

import json
from pathlib import Path

import click
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito's colours, which the colour-blind tell apart too.
STYLES = {
    "NumPy": ("#E69F00", "s"),
    "numkong": ("#56B4E9", "v"),
    "simsimd": ("#009E73", "^"),
    "faiss": ("#CC79A7", "D"),
    "sc-neurocore": ("#D55E00", "X"),
    "Rust engine": ("#000000", "P"),
}


@click.command()
@click.argument("report", type=click.Path(exists=True, path_type=Path))
@click.argument("figure", type=click.Path(dir_okay=False, path_type=Path))
def main(report, figure):
    """Draw REPORT into FIGURE."""
    measured = json.loads(report.read_text())
    kernels = [k for k in measured["kernels"] if any(name.partition(" (")[0] in STYLES for name in k["ratios"])]
    fig, axes = plt.subplots(figsize=(9, 0.28 * len(kernels) + 1.6), layout="constrained")
    for row, kernel in enumerate(kernels):
        for name, ratio in kernel["ratios"].items():
            colour, marker = STYLES[name.partition(" (")[0]]
            axes.plot(1 / ratio, row, marker, markeredgecolor=colour, markerfacecolor="none", markeredgewidth=2, ms=8)
    for name, (colour, marker) in STYLES.items():
        axes.plot([], [], marker, markeredgecolor=colour, markerfacecolor="none", markeredgewidth=2, ms=8, label=name)
    labels = [f"{k['case']}   {k['rate']:,.0f} {k['unit']}" for k in kernels]
    axes.set_yticks(range(len(kernels)), labels)
    axes.set(xscale="log", xlabel="speed, where scdask is 1; faster is to the right", ylim=(len(kernels) - 0.4, -0.6))
    axes.set_xticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    axes.axvline(1, color="#0072B2", linewidth=3, zorder=0, label="scdask")
    axes.grid(axis="both", color="0.93", zorder=0)
    axes.set_title(f"Kernels on one thread, {measured['processor']}, {measured['level']}", fontsize="medium")
    fig.legend(loc="outside lower center", ncols=7, fontsize="small", frameon=False)
    fig.savefig(figure, dpi=90)
    click.echo(f"Written: {figure}")


if __name__ == "__main__":
    main()
