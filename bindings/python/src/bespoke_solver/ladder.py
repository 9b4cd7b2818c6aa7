"""Thetas of several numbers of evaluations, as one scheduler has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .theta import Theta


class Ladder:
    """Thetas by increasing number of evaluations, no two of the same."""

    def __init__(self, rungs: Sequence[Theta]) -> None:
        if not rungs:
            raise ValueError("theta holds no theta, expected one or more")
        self.rungs = sorted(rungs, key=lambda rung: rung.nfe)
        for one, other in zip(self.rungs, self.rungs[1:]):
            if one.nfe == other.nfe:
                raise ValueError(
                    f"theta holds two of {one.nfe} evaluations, {_name(one)} and {_name(other)}, expected one of each number"
                )

    @classmethod
    def of(cls, theta: Any) -> Ladder:
        """From a theta, a file's path, a document, or a sequence of these."""
        parts = list(theta) if isinstance(theta, Sequence) and not isinstance(theta, (str, bytes)) else [theta]
        return cls([rung for part in parts for rung in _thetas(part)])

    @property
    def largest(self) -> Theta:
        """The theta of the most evaluations."""
        return self.rungs[-1]

    def of_steps(self, steps: int) -> Theta:
        """The theta of as many steps."""
        found = [rung for rung in self.rungs if rung.steps == steps]
        if len(found) > 1:
            have = " and ".join(_name(rung) for rung in found)
            raise ValueError(f"num_inference_steps is {steps}, which {have} both have, expected a ladder of one family")
        if not found:
            have = ", ".join(f"{rung.steps} ({rung.nfe} evaluations)" for rung in self.rungs)
            raise ValueError(f"num_inference_steps is {steps}, expected that of a theta at hand: {have}")
        return found[0]


def _name(theta: Theta) -> str:
    return f"{theta.family} x {theta.steps}"


def _thetas(part: Any) -> list[Theta]:
    """The thetas of a file, a document or a ladder's document."""
    if isinstance(part, Theta):
        return [part]
    if isinstance(part, Mapping):
        rungs = part["rungs"] if part.get("format") == "bespoke-ladder" else [part]
        return [Theta.parse(dict(rung)) for rung in rungs]
    return Theta.load_all(part)
