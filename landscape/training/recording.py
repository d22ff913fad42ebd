"""Snapshots that wait for their segment to be sealed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from landscape.snapshots import Role, Segment

Array = np.ndarray


@dataclass
class Rows:
    """Snapshots that wait for their segment to be sealed."""

    theta: list[Array] = field(default_factory=list)
    facts: list[tuple[int, int, int, int, float]] = field(default_factory=list)

    def add(self, theta: Array, step: int, samples_seen: int, epoch: int, role: Role, loss: float) -> None:
        """Append a snapshot; one that equals the last keeps a single row with both roles."""
        if self.facts and self.facts[-1][1] == step:
            # What comes second is the row before a step: it has no batch loss of its own.
            samples, step, _, previous, batch_loss = self.facts[-1]
            self.facts[-1] = (samples, step, epoch, int(Role(previous) | role), batch_loss)
            return
        self.append(theta, step, samples_seen, epoch, role, loss)

    def append(self, theta: Array, step: int, samples_seen: int, epoch: int, role: Role, loss: float) -> None:
        """Append a snapshot with a row of its own."""
        self.theta.append(theta)
        self.facts.append((samples_seen, step, epoch, int(role), loss))

    def seal(self, metrics: dict[str, Array], resume: dict[str, Array]) -> Segment:
        """The rows as an immutable segment."""
        samples, step, epoch, role, loss = zip(*self.facts, strict=True)
        return Segment(
            theta=np.stack(self.theta),
            samples_seen=np.array(samples, np.int64),
            step=np.array(step, np.int64),
            epoch=np.array(epoch, np.int64),
            role=np.array(role, np.uint8),
            batch_loss=np.array(loss, np.float32),
            metrics=metrics,
            resume=resume,
        )
