"""How far a training run has come, saved whole or not at all: one safetensors file, nothing pickled."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hf_captioner.errors import ConfigError


@dataclass
class Progress:
    """Where the run stands; `step` counts the steps already made in `epoch` of `stage`, all from 0."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    best_cider: float = -1.0
    """Of the whole run: the model in `best/`."""
    stage_cider: float = -1.0
    """Best of this stage."""
    epochs_without_improvement: int = 0
    """Epochs of this stage since its best."""
    loss_sum: float = 0.0
    """Of this epoch's steps so far."""
    seconds: float = 0.0
    """Spent on this epoch's steps so far."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """A row an epoch: stage, epoch, loss, seconds, and the validation scores."""


@dataclass(frozen=True)
class OptimizerState:
    """What a stage carries from step to step beside the weights."""

    optimizer: torch.optim.Optimizer
    average: AveragedModel


@dataclass(frozen=True)
class LoadedState:
    """A saved state, read back; the tensors are empty where a stage was about to begin."""

    progress: Progress
    optimizer: dict[int, dict[str, Tensor]]
    """The optimizer's state by parameter index."""
    average: dict[str, Tensor]


def save_state(
    path: Path, belongs_to: dict[str, str], progress: Progress, model: nn.Module, optimizer_state: OptimizerState | None
) -> None:
    """Write everything a later process needs to go on; `optimizer_state` None means that a stage is about to begin."""
    tensors: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in model.named_parameters()}
    if optimizer_state is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in averaged(optimizer_state.average).items()}
        for index, state in optimizer_state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    about = {"progress": json.dumps(dataclasses.asdict(progress)), **belongs_to}
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, unfinished, metadata=about)
    os.replace(unfinished, path)


def load_state(path: Path, belongs_to: dict[str, str], model: nn.Module) -> LoadedState:
    """Load the model's weights and return the rest.

    Raises ConfigError where the state belongs to something else: another recipe, other data, other words.
    """
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        others = [name for name, value in belongs_to.items() if about.get(name) != value]
        if others:
            raise ConfigError(
                f"{path} was saved by another run (its {' and '.join(others)} differ); give another --out folder, or "
                "delete that one to begin anew."
            )
        optimizer: dict[int, dict[str, Tensor]] = {}
        average: dict[str, Tensor] = {}
        parameters = dict(model.named_parameters())
        for name in file.keys():
            kind, _, rest = name.partition(".")
            if kind == "model":
                with torch.no_grad():
                    parameters[rest].copy_(file.get_tensor(name))
            elif kind == "average":
                average[rest] = file.get_tensor(name)
            else:
                index, _, part = rest.partition(".")
                optimizer.setdefault(int(index), {})[part] = file.get_tensor(name)
    return LoadedState(Progress(**json.loads(about["progress"])), optimizer, average)


def averaged(average: AveragedModel) -> dict[str, Tensor]:
    """What changes in an average: its parameters, each once, and how many steps it has seen."""
    return dict(average.named_parameters()) | {"n_averaged": average.n_averaged}
