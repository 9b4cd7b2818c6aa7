"""Small TorchScript networks as people export them: `python tests/golden/make_networks.py` (torch 2.11).

Each gives x * time of samples of four numbers, in another shell.
"""

from pathlib import Path
from typing import Dict, NamedTuple, Tuple

import torch

HERE = Path(__file__).parent


class Output(NamedTuple):
    sample: torch.Tensor


class InTuple(torch.nn.Module):
    def forward(self, x: torch.Tensor, time: torch.Tensor) -> Tuple[torch.Tensor]:
        return (x * time[:, None],)


class InObject(torch.nn.Module):
    def forward(self, x: torch.Tensor, time: torch.Tensor) -> Output:
        return Output(sample=x * time[:, None])


class InDictionary(torch.nn.Module):
    def forward(self, x: torch.Tensor, time: torch.Tensor) -> Dict[str, torch.Tensor]:
        return {"sample": x * time[:, None]}


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor, time: torch.Tensor) -> Dict[str, torch.Tensor]:
        return {"sample": x * time[:, None], "logvar": x}


class HalfWeights(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4).half()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * time[:, None]


class IntegerTime(torch.nn.Module):
    """Its time is an index into a table, as of discrete models: autograd does not see it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(0.0, 1.0, 1001))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return x * self.table[(1000.0 * time).long()][:, None]


def main() -> None:
    torch.manual_seed(0)
    networks = dict(tuple=InTuple(), object=InObject(), dictionary=InDictionary(), two=Two(), half=HalfWeights())
    for name, network in dict(networks, indexed=IntegerTime()).items():
        torch.jit.script(network.eval()).save(str(HERE / f"network-{name}.pt"))


if __name__ == "__main__":
    main()
