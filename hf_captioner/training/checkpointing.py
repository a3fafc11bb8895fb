"""The state of a training run in one safetensors file, nothing pickled: saved whole or not at all."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hf_captioner.atomic import write_file
from hf_captioner.errors import ConfigError


@dataclass
class Progress:
    """How far the run has come: `step` steps of `epoch` of `stage` are done, all counted from 0."""

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
    """What a stage updates in each step beside the weights."""

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
    path: Path, identity: dict[str, str], progress: Progress, model: nn.Module, optimizer_state: OptimizerState | None
) -> None:
    """Write everything that a later process needs to resume; `optimizer_state` None: a stage is about to begin.

    identity: what of the run must be the same when it is resumed, by name.
    """
    tensors: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in model.named_parameters()}
    if optimizer_state is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in averaged(optimizer_state.average).items()}
        for index, state in optimizer_state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    metadata = {"progress": json.dumps(dataclasses.asdict(progress)), **identity}
    saved = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_file(path, lambda temporary: save_file(saved, temporary, metadata=metadata))


def load_state(path: Path, identity: dict[str, str], model: nn.Module) -> LoadedState:
    """Load the model's weights and return the rest. Raises ConfigError where another run saved it."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        others = [name for name, value in identity.items() if metadata.get(name) != value]
        if others:
            raise ConfigError(
                f"{path} was saved by another run (with another {' and another '.join(others)}); give another --out "
                "folder, or delete that one to begin anew."
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
    return LoadedState(Progress(**json.loads(metadata["progress"])), optimizer, average)


def weights_digest(*modules: nn.Module) -> str:
    """A digest of the modules' weights, as float32."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def averaged(average: AveragedModel) -> dict[str, Tensor]:
    """The state of an average: its parameters, each once, and the number of its updates."""
    return dict(average.named_parameters()) | {"n_averaged": average.n_averaged}
