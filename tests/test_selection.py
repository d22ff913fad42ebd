"""Several snapshots of each run: which ones words name, and what becomes of runs that lack them."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import TINY, small_config

from landscape.errors import ConfigurationError, MissingSnapshotError
from landscape.snapshots import (
    Role,
    Run,
    RunDescription,
    RunWriter,
    Segment,
    layout_of,
    open_run,
    positions,
    select_index,
    thin_run,
)
from landscape.study.columns import FAILED, OK
from landscape.study.ledger import Ledger
from landscape.study.selection import exclusion_reasons
from landscape.study.survey import execute, make_plan
from landscape.training.loop import train

LAYOUT = layout_of(torch.nn.Linear(2, 1).named_parameters())
LOSSES = (0.5, 0.1, 0.025, float("nan"), 0.03)
CONFIG = TINY


def stored(path: Path, losses: tuple[float, ...] = LOSSES) -> Run:
    """Two snapshots an epoch, of which the second ends it and has a training loss."""
    description = RunDescription("linear", {}, LAYOUT, {"seed": 0}, "cd" * 32)
    with RunWriter(path, description, None) as writer:
        for epoch, loss in enumerate(losses, 1):
            rows = np.arange(2 * epoch - 2, 2 * epoch)
            writer.append(
                Segment(
                    theta=rows[:, None].astype(np.float32) + np.ones(3, np.float32),
                    samples_seen=rows + 1,
                    step=rows + 1,
                    epoch=np.array([epoch - 1, epoch]),
                    role=np.array([Role.AFTER, Role.EPOCH_END]),
                    batch_loss=np.zeros(2, np.float32),
                    metrics={"epoch": np.array([float(epoch)]), "train_loss": np.array([loss])},
                    resume={"momentum": np.zeros(3, np.float32)},
                )
            )
        writer.finish("completed", epochs=len(losses))
    return open_run(path)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("last", [9]),
        ("first", [0]),
        ("index=4", [4]),
        ("every:4", [0, 4, 8, 9]),
        ("every:3", [0, 3, 6, 9]),
        ("every:100", [0, 9]),
        ("epochs:1,2,5", [1, 3, 9]),
        ("epochs:5,1,5", [9, 1]),
        ("equal-loss:0.1", [3]),
        ("equal-loss:0.2", [3]),
        ("equal-loss:0.0273", [5]),
        ("equal-loss:0.0275", [9]),
        ("equal-loss:1.0", [1]),
        ("equal-loss:0.0125", [5]),
    ],
)
def test_what_is_selected(tmp_path: Path, select: str, expected: list[int]) -> None:
    run = stored(tmp_path / "run")
    assert [select_index(run, at) for at in positions(select, len(run))] == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-8, 1e3), min_size=1, max_size=5), st.floats(1e-8, 1e3))
def test_the_nearest_loss_in_log(fast_disk: Path, losses: list[float], wanted: float) -> None:
    run = stored(Path(tempfile.mkdtemp(dir=fast_disk)) / "run", tuple(losses))
    apart = [max(loss / wanted, wanted / loss) for loss in losses]
    try:
        index = select_index(run, f"equal-loss={wanted!r}")
    except MissingSnapshotError:
        assert min(apart) > 2
    else:
        assert apart[index // 2] == pytest.approx(min(apart)) and min(apart) < 2.000001


def test_equal_loss_refuses_runs_that_never_come_near(tmp_path: Path) -> None:
    run = stored(tmp_path / "run")
    for wanted in ("1.01", "0.0124", "0.22361"):
        with pytest.raises(MissingSnapshotError, match=f"within a factor 2 of {wanted}; the nearest is 0"):
            select_index(run, f"equal-loss={wanted}")
    with pytest.raises(MissingSnapshotError, match="no snapshot with a training loss"):
        select_index(stored(tmp_path / "none", (float("nan"), 0.0)), "equal-loss=0.1")


def test_equal_loss_looks_only_at_stored_epochs(tmp_path: Path) -> None:
    stored(tmp_path / "run")
    thinned = open_run(thin_run(tmp_path / "run", tmp_path / "thin", ["epoch=1", "epoch=5"]))
    assert thinned.epoch[select_index(thinned, "equal-loss=0.025")] == 5


@pytest.mark.parametrize(
    "select",
    ["", "middle", "every", "every:", "every:0", "every:x", "every:-1", "epochs:", "epochs:1,", "epochs:1,x",
     "equal-loss:", "equal-loss:0", "equal-loss:-1", "equal-loss:nan", "equal-loss:inf", "last:2", "best:exact"],
)  # fmt: skip
def test_other_words_are_refused(select: str) -> None:
    with pytest.raises(ConfigurationError, match="Got "):
        positions(select, 3)


@pytest.mark.usefixtures("small_data")
def test_several_rows_a_run(tmp_path: Path) -> None:
    """A row for each position, a failed one for each that is not there; the last of each run is correlated."""
    for seed, epochs in enumerate((2, 3)):
        train(small_config(epochs=epochs, seed=seed), tmp_path / "runs" / f"run{seed}")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        plan = make_plan([tmp_path / "runs"], "epochs:1,3", CONFIG, ledger, "cpu")
        rows = [*plan.unreadable, *execute(plan, ledger, lambda: ThreadPoolExecutor(1), workers=1)]
    rows.sort(key=lambda row: (str(row["path"]), str(row["at"])))
    assert [(row["run"], row["at"], row["status"]) for row in rows] == [
        ("run0", "epoch=1", OK),
        ("run0", "epoch=3", FAILED),
        ("run1", "epoch=1", OK),
        ("run1", "epoch=3", OK),
    ]
    assert "no snapshot of epoch 3" in str(rows[1]["error"])
    assert exclusion_reasons(rows, "1.7")[1:3] == ["failed", "repeated"]


@pytest.mark.usefixtures("small_data")
def test_the_loss_of_a_trained_run(tmp_path: Path) -> None:
    """What training stores is what `equal-loss` reads."""
    train(small_config(epochs=3), tmp_path / "run")
    run = open_run(tmp_path / "run")
    for epoch, loss in zip(run.metrics["epoch"], run.metrics["train_loss"], strict=True):
        assert run.epoch[select_index(run, f"equal-loss={float(loss)!r}")] == epoch
