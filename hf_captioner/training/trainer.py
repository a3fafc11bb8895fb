"""The training loop: it ends with the same weights after any interruption, on one process or on several machines."""

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hf_captioner.atomic import remove_leftovers
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import ConfigError, DataError, TrainingError
from hf_captioner.modeling.device import resolve_device
from hf_captioner.training.checkpointing import LoadedState, OptimizerState, Progress, averaged, load_state, save_state
from hf_captioner.training.curves import draw_curves
from hf_captioner.training.data import Record
from hf_captioner.training.dataset import Batch, CaptionDataset, EpochOrder, loader
from hf_captioner.training.evaluate import caption_records, mean_scores, score_each
from hf_captioner.training.feature_cache import FeatureCache, cached_features
from hf_captioner.training.initialization import Origin, training_record
from hf_captioner.training.known_words import known_words, learnable
from hf_captioner.training.losses import CrossEntropy, LossOutput, SelfCritical
from hf_captioner.training.optimization import build_average, build_optimizer, set_learning_rate
from hf_captioner.training.recipe import Recipe, Stage
from hf_captioner.training.rewards import Bleu4, cider_of_data_sets
from hf_captioner.training.rows import counted
from hf_captioner.training.time_left import time_left

logger = logging.getLogger(__name__)

SAVE_EVERY = 60
"""Steps between two saved states."""


class Trainer:
    """One training run: its data, its model, and how far it has come."""

    def __init__(
        self,
        recipe: Recipe,
        records: Sequence[Record],
        out: Path,
        origin: Origin,
        *,
        features: Path | None = None,
        device: str = "auto",
    ) -> None:
        """features: where the frozen encoder's features are cached.

        Resumes the run whose state lies in `out`. Raises ConfigError where that was another run, DataError without
        training or validation images, and where the captioner has not a word of their captions.
        """
        self.recipe, self.out, self.state_file = recipe, out, out / "state.safetensors"
        self.features = features or out / "features"
        self.afterwards = 0.0
        """Seconds that what follows the training will take, for the time left."""
        self.train = [record for record in records if record.split == "train"]
        self.validation = [record for record in records if record.split == "validation"]
        if not self.train or not self.validation:
            raise DataError(
                f"Training needs train and validation images; found {len(self.train)} and {len(self.validation)}; give "
                "more, or name each image's split in the data."
            )
        self.accelerator = _accelerator(device, recipe.mixed_precision)
        self.captioner, self.new_words = origin.captioner(recipe, self.train)
        for stage in recipe.stages:  # a module that is not there ends the run now, not after hours
            self.captioner.encoder.unfreeze_from(stage.unfreeze_from)
        if self.new_words:
            self._log(str(self.new_words))
        self._leave_out_unknown()
        self.captioner.evaluation = training_record(self.captioner, origin, self.train)
        self.tokenizer = self.captioner.tokenizer
        self.identity = self._identity(origin)
        self.captioner.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.loaded = LoadedState(Progress(), {}, {})
        if self.state_file.exists():
            self.loaded = load_state(self.state_file, self.identity, self.captioner)
        self.progress = at = self.loaded.progress
        if self.state_file.exists() and not self.finished:
            self._log(f"resuming at stage {at.stage + 1}, epoch {at.epoch + 1}, step {at.step}")
        self.tensorboard: SummaryWriter | None = None
        if self.accelerator.is_main_process:
            remove_leftovers(out)
            for unfinished in (out / "best").glob(".saving-*"):
                shutil.rmtree(unfinished)
            self.tensorboard = SummaryWriter(str(out / "tensorboard"))

    def _leave_out_unknown(self) -> None:
        """Train on captions of which the captioner has a word; say how many words it has not."""
        tokenizer = self.captioner.tokenizer
        for records, split in (self.validation, "validation"), (self.train, "training"):
            found = known_words(records, tokenizer, split)
            if found.unknown:
                self._log(f"{split} captions: {found}")
        self.train, given = learnable(self.train, tokenizer, found), self.train
        captions, kept = (sum(len(record.captions) for record in records) for records in (given, self.train))
        if kept < captions:
            images = counted(len(given) - len(self.train), "image")
            self._log(
                f"left out: {captions - kept:,} of {captions:,} training captions, without a word that the captioner "
                f"has, and with them {images} that had no other"
            )

    @property
    def finished(self) -> bool:
        """Whether every stage is done."""
        return self.progress.stage == len(self.recipe.stages)

    def run(self) -> None:
        """Run every remaining stage; `out/best` then holds the captioner with the best validation CIDEr."""
        while not self.finished:
            self._run_stage(self.recipe.stages[self.progress.stage])
            self._log(
                f"stage {self.progress.stage + 1} done; best validation CIDEr {100 * self.progress.best_cider:.1f}"
            )
            best = ImageCaptioner.from_pretrained(self.out / "best", device=self.accelerator.device, backend="torch")
            self.captioner.encoder.load_state_dict(best.encoder.state_dict())
            self.captioner.decoder.load_state_dict(best.decoder.state_dict())
            at = self.progress
            self.progress = Progress(stage=at.stage + 1, best_cider=at.best_cider, history=at.history)
            self._save(None)
        if self.tensorboard:
            self.tensorboard.close()

    def _identity(self, origin: Origin) -> dict[str, str]:
        """What must be the same for a saved state to be resumed, by name: nothing that was measured is part of it."""
        config = {**self.captioner.config.to_dict(), "confidence": None}
        records = [
            [record.path.name, record.path.stat().st_size, record.captions, record.split, record.weight]
            for record in (*self.train, *self.validation)
        ]
        parts = {
            "recipe": {name: value for name, value in self.recipe.to_dict().items() if name != "data"},
            "model": [config, self.captioner.generation_config.to_dict()],
            "data set": records,
            "vocabulary": self.tokenizer.words,
            "initialization": origin.identity(self.captioner),
        }
        return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}

    def _run_stage(self, stage: Stage) -> None:
        self._log(f"stage {self.progress.stage + 1} of {len(self.recipe.stages)}: {stage}")
        self.captioner.encoder.unfreeze_from(stage.unfreeze_from)
        features = None if stage.reads_pixels else self.cached(self.train)
        validation_features = None if stage.unfreeze_from else self.cached(self.validation)
        average = self._average()
        dataset = CaptionDataset(self.train, self.tokenizer, self.captioner.config, stage, self.recipe.seed, features)
        model, optimizer = self.accelerator.prepare(self._objective(stage, dataset), self._optimizer(stage))
        self.loaded = LoadedState(self.progress, {}, {})
        optimizer_state = OptimizerState(optimizer, average)
        process = self.accelerator.process_index, self.accelerator.num_processes
        order = EpochOrder([record.weight for record in self.train], self.recipe.batch_size, self.recipe.seed, *process)
        while self.progress.epoch < stage.epochs and self.progress.epochs_without_improvement < self.recipe.patience:
            self._run_epoch(stage, model, optimizer_state, dataset, order)
            self._validate(stage, cast(ImageCaptioner, average.module), validation_features)
            self._save(optimizer_state)
            self._log(time_left(self.recipe.stages, self.progress, self.recipe.patience, self.afterwards))

    def _run_epoch(
        self,
        stage: Stage,
        model: nn.Module,
        optimizer_state: OptimizerState,
        dataset: CaptionDataset,
        order: EpochOrder,
    ) -> None:
        at = self.progress
        order.epoch, order.first = len(at.history), at.step
        model.train()
        self.captioner.encoder.eval()
        batches = tqdm(
            loader(dataset, order, self.recipe),
            desc=f"stage {at.stage + 1} epoch {at.epoch + 1}/{stage.epochs}",
            initial=at.step,
            total=len(order),
            disable=not self.accelerator.is_main_process,
            dynamic_ncols=True,
        )
        began = time.perf_counter()
        for batch in batches:
            done = at.epoch * len(order) + at.step
            set_learning_rate(optimizer_state.optimizer, stage, done, stage.epochs * len(order))
            at.loss_sum += self._step(model, optimizer_state.optimizer, batch, len(at.history) * len(order) + at.step)
            optimizer_state.average.update_parameters(self.captioner)
            at.step += 1
            batches.set_postfix(loss=f"{at.loss_sum / at.step:.3f}", refresh=False)
            if self.tensorboard:
                self.tensorboard.add_scalar("train/loss", at.loss_sum / at.step, len(at.history) * len(order) + at.step)
            if at.step % SAVE_EVERY == 0 and at.step < len(order):
                at.seconds += time.perf_counter() - began
                began = time.perf_counter()
                self._save(optimizer_state)
        at.seconds += time.perf_counter() - began

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, count: int) -> float:
        """One update; returns the objective. Random numbers depend on nothing but (seed, step, process)."""
        torch.manual_seed((self.recipe.seed * 1_000_003 + count) * 1_009 + self.accelerator.process_index)
        with self.accelerator.autocast():
            output: LossOutput = model(batch.to(self.accelerator.device))
        value, weight = self.accelerator.reduce((output.value, output.weight.to(output.value.device)), "sum")
        value = float(value / weight)
        # DDP averages gradients over processes; this makes that average the mean over all of the step's words.
        loss = output.loss * self.accelerator.num_processes / weight
        if not math.isfinite(value):
            raise TrainingError(f"Training diverged: the loss is {value} at step {count}; lower the learning rate.")
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(model.parameters(), self.recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return value

    def _validate(self, stage: Stage, captioner: ImageCaptioner, validation_features: FeatureCache | None) -> None:
        """Score the validation images, keep the model where it is the best yet, and move to the next epoch.

        Of several data sets each is scored apart, and their plain mean decides.
        """
        at, began = self.progress, time.perf_counter()
        found: list[dict[str, dict[str, float]]] = [{}]
        if self.accelerator.is_main_process:
            captions = caption_records(captioner.eval(), self.validation, features=validation_features)
            found = [score_each([caption.text for caption in captions], self.validation, meteor=False)]
        each: dict[str, dict[str, float]] = broadcast_object_list(found)[0]  # all processes take the same decisions
        scores = mean_scores(each)
        cider, told = scores["CIDEr"], _percent(scores)
        if len(each) > 1:
            told = f"mean {told}; {'; '.join(f'{name} {_percent(own)}' for name, own in each.items())}"
            scores |= {f"{name} {metric}": value for name, own in each.items() for metric, value in own.items()}
        row = {"stage": at.stage, "epoch": at.epoch, "loss": at.loss_sum / at.step, "seconds": round(at.seconds, 3)}
        at.history.append({**row, **scores, "validation_seconds": round(time.perf_counter() - began, 3)})
        self._log(f"stage {at.stage + 1} epoch {at.epoch + 1}: loss {row['loss']:.3f}, {told}, {row['seconds']:.0f} s")
        if self.tensorboard:
            if cider > at.best_cider:
                captioner.save_pretrained(self.out / "best")
            draw_curves(at.history, self.out / "curves.png")
            for name, value in scores.items():
                self.tensorboard.add_scalar(f"validation/{name}", value, len(at.history))
        at.epochs_without_improvement = 0 if cider > at.stage_cider else at.epochs_without_improvement + 1
        at.best_cider, at.stage_cider = max(at.best_cider, cider), max(at.stage_cider, cider)
        at.epoch, at.step, at.loss_sum, at.seconds = at.epoch + 1, 0, 0.0, 0.0

    def _optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        optimizer = build_optimizer(self.captioner, stage, self.recipe.weight_decay, len(self.new_words))
        if self.loaded.optimizer:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": self.loaded.optimizer})
        return optimizer

    def _objective(self, stage: Stage, dataset: CaptionDataset) -> nn.Module:
        cross_entropy = CrossEntropy(self.captioner, label_smoothing=self.recipe.label_smoothing)
        if stage.objective == "cross_entropy":
            return cross_entropy
        references = [[[*ids, self.tokenizer.end_id] for ids in group] for group in dataset.ids]
        cider = cider_of_data_sets(references, [record.data_set for record in self.train])
        bleu = Bleu4(references)

        def reward(image: int, ids: Sequence[int]) -> float:
            return cider(image, ids) + (stage.bleu * bleu(image, ids) if stage.bleu else 0.0)

        longest = self.captioner.generation_config.max_length
        return SelfCritical(
            cross_entropy,
            reward,
            samples=stage.samples,
            max_length=longest,
            xe_weight=stage.xe_weight,
            temperature=stage.temperature,
        )

    def _average(self) -> AveragedModel:
        average = build_average(self.captioner, self.recipe.average)
        with torch.no_grad():
            for name, tensor in self.loaded.average.items():
                averaged(average)[name].copy_(tensor)
        return average

    def cached(self, records: Sequence[Record]) -> FeatureCache:
        self.captioner.encoder.eval()
        with self.accelerator.autocast(), self.accelerator.main_process_first():
            paths = [record.path for record in records]
            return cached_features(self.captioner.encoder, self.captioner.config, paths, self.features)

    def _save(self, optimizer_state: OptimizerState | None) -> None:
        if self.accelerator.is_main_process:
            save_state(self.state_file, self.identity, self.progress, self.captioner, optimizer_state)
        self.accelerator.wait_for_everyone()

    def _log(self, message: str) -> None:
        if self.accelerator.is_main_process:
            logger.info(message)


def _percent(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items())


def _accelerator(device: str, mixed_precision: str) -> Accelerator:
    """auto: what `accelerate launch` was told, else the GPU where there is one. Raises ConfigError."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"device is {device!r}; training expects auto, cpu or cuda; choose one of several GPUs with "
            "CUDA_VISIBLE_DEVICES."
        )
    resolve_device(device)
    return Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)
