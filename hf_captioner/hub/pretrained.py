"""Loading, saving and pushing a captioner, as the Hub's users know it: a `PyTorchModelHubMixin` in earnest.

Three public methods of the mixin are extended, each with all of its parameters: `from_pretrained` has a default and
knows devices; `save_pretrained` writes whole or not at all, where the mixin deletes config.json before it has written
another; `push_to_hub` makes one commit and keeps a card that a person wrote.
"""

import logging
import os
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from huggingface_hub import CommitInfo, ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from hf_captioner.config import CaptionerConfig, GenerationConfig
from hf_captioner.errors import CheckpointError, ConfigError, MissingExtraError, TokenizerError
from hf_captioner.hub.card import is_generated, render_card
from hf_captioner.hub.checkpoint import (
    CARD,
    EVALUATION,
    LICENSE,
    TOKENIZER,
    WEIGHTS,
    Description,
    read_description,
    read_text,
    replacing,
)
from hf_captioner.hub.download import resolve
from hf_captioner.hub.evaluation import Evaluation
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.hub.push import Patterns, full_repo_id, push_folder
from hf_captioner.hub.weights import as_float16, check_weights, read_weights
from hf_captioner.modeling.device import resolve_backend, resolve_device, resolve_dtype
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.onnx.export import EXPORT_FILES, FOLDER, file_names

logger = logging.getLogger(__name__)

FROM_THE_MIXIN = {"config", "revision", "token", "cache_dir", "local_files_only", "force_download"}
"""What the mixin hands on to `_from_pretrained`, and `from_pretrained` has made use of."""


class PreTrainedCaptioner(nn.Module, PyTorchModelHubMixin, library_name="hf-captioner", pipeline_tag="image-to-text"):
    """What a captioner is made of beside its modules, and how these are loaded, saved and pushed."""

    def __init__(
        self, config: CaptionerConfig, tokenizer: CaptionTokenizer, generation_config: GenerationConfig | None = None
    ) -> None:
        """Raises ConfigError where the tokenizer does not fit the config."""
        super().__init__()
        if len(tokenizer) != config.vocabulary_size:
            found = config.vocabulary_size
            raise ConfigError(f"CaptionerConfig.vocabulary_size is {found}; expected the tokenizer's {len(tokenizer)}.")
        self.config, self.tokenizer = config, tokenizer
        self.generation_config = generation_config or GenerationConfig()
        """What `caption` does where nothing else is asked."""
        self.evaluation = Evaluation()
        """What was measured of these weights."""
        self.weights_license: str | None = None
        """Text of the weights' own licence, saved beside them as LICENSE."""
        self.card: str | None = None
        """The model card that a person wrote for these weights; None where it is to be rendered."""
        self.dtype = torch.float32
        """What captions are computed in: float32, bfloat16 or float16, or int8; the weights stay float32."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # -- loading -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        backend: str = "auto",
        **model_kwargs: Any,
    ) -> Self:
        """Load the bundled checkpoint (None), a folder's, or a Hub repository's; in evaluation mode.

        device: `auto` (CUDA where there is one), or a name or device of PyTorch's. dtype: `float32`, `bfloat16`,
        `float16` or, by ONNX Runtime, `int8`. backend: `torch`, or `onnx`, which exports the captioner where that was
        not done yet. `auto` for both is what was measured to be the quickest on this machine (see `take_quickest`), or
        PyTorch in float32 where nothing was.
        Strict: config, words and weights must fit each other exactly; nothing is unpickled, and no encoder's weights
        are downloaded. Raises CheckpointError and, for a device, dtype or backend, ConfigError.
        """
        place, precision = resolve_device(device), resolve_dtype(dtype)
        if place.type != "cpu":
            precision = precision or torch.float32  # what was measured was the processor
        backend = resolve_backend(backend, precision, place)
        graphs = [f"{FOLDER}/{name}" for name in file_names(precision or torch.float32)] if backend == "onnx" else []
        folder = bundled_checkpoint()
        if pretrained_model_name_or_path is not None:
            folder = resolve(
                pretrained_model_name_or_path,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
                beside=graphs,
            )
        config = read_description(folder).config  # else the mixin would read the file, and forgive it everything
        return super().from_pretrained(
            folder, config=config, device=place, dtype=precision, backend=backend, **model_kwargs
        )

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # from_pretrained gives it all that there is
        cls,
        *,
        model_id: str,
        device: torch.device,
        dtype: torch.dtype | None,
        backend: str,
        **model_kwargs: Any,
    ) -> Self:
        """Load a folder, which `from_pretrained` has resolved."""
        unknown = sorted(model_kwargs.keys() - FROM_THE_MIXIN)
        if unknown:
            raise TypeError(
                f"from_pretrained() has no {', '.join(unknown)}; it has device, dtype, backend and the Hub's own."
            )
        return cls._load(Path(model_id), dtype, backend).to(device)

    @classmethod
    def _load(cls, folder: Path, dtype: torch.dtype | None, backend: str) -> Self:
        """A folder's captioner on the processor."""
        captioner = cls._without_weights(folder)
        captioner._fill(read_weights(folder / WEIGHTS, captioner._shapes()))
        captioner.to(memory_format=torch.channels_last)
        captioner.dtype = dtype or torch.float32
        return captioner

    @classmethod
    def _without_weights(cls, folder: Path, **parts: nn.Module) -> Self:
        """What a folder's files but for the weights say, on the meta device. Raises CheckpointError, and
        MissingExtraError for an encoder whose library is not installed. parts: modules that are not to be built anew.
        """
        description = read_description(folder)
        try:
            tokenizer = CaptionTokenizer.load(folder / TOKENIZER)
            with torch.device("meta"):
                captioner = cls(description.config, tokenizer, description.generation_config, **parts)
        except MissingExtraError:
            raise  # the checkpoint is whole
        except (ConfigError, TokenizerError) as error:
            raise CheckpointError(f"{folder} is not a whole captioner: {error}") from error
        captioner.evaluation = description.evaluation
        captioner.weights_license, card = read_text(folder, LICENSE), read_text(folder, CARD)
        captioner.card = None if card is None or is_generated(card) else card
        return captioner

    def _fill(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a checkpoint, as float32."""
        self.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False, assign=True)
        self.tie_weights()
        self.eval()

    def _shapes(self) -> dict[str, list[int]]:
        """Name -> shape of what stands in the weights' file; of a tied parameter once."""
        return {name: list(parameter.shape) for name, parameter in self.named_parameters()}

    def tie_weights(self) -> None:
        """Make one parameter again of those that share their weights."""

    # -- saving --------------------------------------------------------------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> str | None:
        """Write the checkpoint's files (weights in float16, the card README.md and, if known, LICENSE).

        A README.md there that a person wrote or edited is kept; the LICENSE and the measurements of another checkpoint
        are not. repo_id: the Hub id that the card names, and where `push_to_hub` pushes to, with `kwargs` as
        `push_to_hub` takes them; returns the commit's URL then.
        Raises CheckpointError for weights that float16 cannot hold, for what would not load again, and for a folder
        that cannot be written; the files that were there are then as they were.
        """
        folder = Path(save_directory)
        card = {"repo_id": repo_id, **(model_card_kwargs or {})}
        with replacing(folder, stale=(EVALUATION, LICENSE)) as staged:
            super().save_pretrained(staged, config=kwargs.get("config"), model_card_kwargs=card)
            self._check_saved(staged)
            own = read_text(folder, CARD)
            if own is not None and not is_generated(own):
                (staged / CARD).unlink()
            if self.weights_license is None and (folder / LICENSE).exists():
                logger.warning("%s was another checkpoint's and is removed: this one has none.", folder / LICENSE)
        if push_to_hub:
            return self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **kwargs)
        return None

    def _save_pretrained(self, save_directory: Path) -> None:
        texts = {**self.description.texts(), TOKENIZER: self.tokenizer.to_json()}
        texts |= {LICENSE: self.weights_license} if self.weights_license is not None else {}
        texts |= {CARD: self.card} if self.card is not None else {}
        weights = safetensors.torch.save(as_float16(dict(self.named_parameters())), {"format": "pt"})
        for name, content in {**{name: text.encode() for name, text in texts.items()}, WEIGHTS: weights}.items():
            (save_directory / name).write_bytes(content)

    def _check_saved(self, folder: Path) -> None:
        """Raise CheckpointError unless what was just saved would load; of the weights only the header is read."""
        try:
            check_weights(folder / WEIGHTS, type(self)._without_weights(folder)._shapes())
        except CheckpointError as error:
            raise CheckpointError(f"Nothing is saved, as it would not load again: {error}") from error

    @abstractmethod
    def export_onnx(self, folder: str | os.PathLike[str]) -> None:
        """Write the captioner as ONNX graphs."""

    @property
    def description(self) -> Description:
        """What the checkpoint's JSON files say."""
        return Description(self.config, self.generation_config, self.evaluation)

    def generate_model_card(self, *, repo_id: str | None = None) -> ModelCard:
        """The card that `save_pretrained` writes where no person wrote one."""
        return ModelCard(render_card(self.description, repo_id, license_text=self.weights_license))

    # -- pushing -------------------------------------------------------------------------------------------------------

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push captioner",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        overwrite_card: bool = False,
        onnx: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        allow_patterns: Patterns = None,
        ignore_patterns: Patterns = None,
        delete_patterns: Patterns = None,
        **kwargs: Any,
    ) -> CommitInfo:
        """Push what `save_pretrained` writes to the Hub in one commit; a string, its URL (`pr_url` the pull request's).

        A card on the Hub that a person wrote or edited stays as it is, unless `overwrite_card`. onnx: with the graphs
        of `export_onnx`; without it those of an earlier push go, for they are of other weights. Raises CheckpointError.
        """
        repo_id = full_repo_id(repo_id, token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id, model_card_kwargs=model_card_kwargs, **kwargs)
            if onnx:
                self.export_onnx(folder)
            return push_folder(
                Path(folder),
                repo_id,
                private=private,
                token=token,
                branch=branch,
                commit_message=commit_message,
                create_pr=bool(create_pr),
                overwrite_card=overwrite_card,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=delete_patterns,
                stale=(EVALUATION, *EXPORT_FILES),
            )
