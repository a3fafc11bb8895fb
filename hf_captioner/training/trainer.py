"""Train a captioner.

`python -m hf_captioner.training.trainer RECIPE.yaml --data DIR --out DIR (--backbone FILE|torchvision | --init ID)`

Start it again with the same arguments after any interruption: it goes on where it was and ends with the same weights.
Under `accelerate launch` the same command trains on several processes or machines.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import CheckpointError, ConfigError, DataError, ImageError, TokenizerError
from hf_captioner.hub.evaluation import Evaluation, TrainingSet
from hf_captioner.hub.packaged import bundled_checkpoint, data_path
from hf_captioner.modeling.device import resolve_device
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training.checkpointing import LoadedState, OptimizerState, Progress, averaged, load_state, save_state
from hf_captioner.training.curves import draw_curves
from hf_captioner.training.data import Record, load_records
from hf_captioner.training.dataset import Batch, CaptionDataset, EpochOrder, loader
from hf_captioner.training.evaluate import caption_records, score
from hf_captioner.training.feature_cache import FeatureCache, cached_features
from hf_captioner.training.losses import CrossEntropy, LossOutput, SelfCritical
from hf_captioner.training.recipe import Recipe, Stage
from hf_captioner.training.rewards import Bleu4, CiderD

SAVE_EVERY = 60
"""Steps between two saved states."""
OVERRIDABLE = ("dropout", "confidence")
"""Fields of CaptionerConfig in which a recipe may differ from the captioner that it trains further."""


class Trainer:
    """One training run: its data, its model, and how far it has come."""

    def __init__(
        self,
        recipe: Recipe,
        records: Sequence[Record],
        out: Path,
        *,
        backbone: str | None = None,
        init: str | None = None,
        features: Path | None = None,
        dataset: str = "",
        device: str = "auto",
    ) -> None:
        self.recipe, self.out, self.state_file = recipe, out, out / "state.safetensors"
        self.features = features or out / "features"
        self.train = [record for record in records if record.split == "train"]
        self.validation = [record for record in records if record.split == "validation"]
        if not self.train or not self.validation:
            raise DataError(
                f"Training needs train and validation images; found {len(self.train)} and {len(self.validation)}."
            )
        on_cpu = resolve_device(device).type == "cpu"
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision=recipe.mixed_precision)
        torch.manual_seed(recipe.seed)
        self.captioner = self._new(init)
        self.captioner.evaluation = self._recorded(dataset, backbone, init)
        self.tokenizer = self.captioner.tokenizer
        self.captioner.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.loaded = LoadedState(Progress(), {}, {})
        if self.state_file.exists():
            self.loaded = load_state(self.state_file, self._belongs_to(), self.captioner)
            at = self.loaded.progress
            self._say(f"going on at stage {at.stage + 1}, epoch {at.epoch + 1}, step {at.step}")
        elif backbone not in (None, "random"):
            self.captioner.encoder.load_backbone(backbone)
        self.progress = self.loaded.progress
        self.log = SummaryWriter(str(out / "tensorboard")) if self.accelerator.is_main_process else None

    def run(self) -> None:
        """Every stage, from where the saved state says; `out/best` holds the best captioner."""
        while self.progress.stage < len(self.recipe.stages):
            self._run_stage(self.recipe.stages[self.progress.stage])
            self._say(
                f"stage {self.progress.stage + 1} done; best validation CIDEr {100 * self.progress.best_cider:.1f}"
            )
            best = ImageCaptioner.from_pretrained(self.out / "best")
            self.captioner.load_state_dict(best.state_dict())
            at = self.progress
            self.progress = Progress(stage=at.stage + 1, best_cider=at.best_cider, history=at.history)
            self._save(None)
        if self.log:
            self.log.close()

    def _new(self, init: str | None) -> ImageCaptioner:
        """A captioner with random weights and the training captions' words, or one with the weights and words of
        `init`, a folder or Hub id."""
        if init is None:
            sentences = (caption for record in self.train for caption in record.captions)
            tokenizer = CaptionTokenizer.build(sentences, self.recipe.min_count)
            config = self.recipe.captioner_config(len(tokenizer))
            return ImageCaptioner(config, tokenizer, self.recipe.generation_config())
        given = ImageCaptioner.from_pretrained(init)
        config = self.recipe.captioner_config(given.config.vocabulary_size)
        wanted, found = config.to_dict(), given.config.to_dict()
        differ = [name for name in wanted if wanted[name] != found[name] and name not in OVERRIDABLE]
        if differ:
            pairs = ", ".join(f"{name} {found[name]!r} and not {wanted[name]!r}" for name in differ)
            raise ConfigError(f"{init} has {pairs}; change the recipe's `model`, or begin without --init.")
        captioner = ImageCaptioner(config, given.tokenizer, self.recipe.generation_config())
        captioner.encoder.load_state_dict(given.encoder.state_dict())
        captioner.decoder.load_state_dict(given.decoder.state_dict())
        captioner.weights_license = given.weights_license
        captioner.evaluation = given.evaluation
        return captioner

    def _recorded(self, dataset: str, backbone: str | None, init: str | None) -> Evaluation:
        """What the card says of the training; what was measured of earlier weights is dropped."""
        captions = sum(len(record.captions) for record in self.train)
        own = TrainingSet(dataset or "a data set without a name", len(self.train), captions)
        origin = f"the captioner {init}" if init else None if backbone in (None, "random") else "ImageNet weights"
        return Evaluation(trained_on=(*self.captioner.evaluation.trained_on, own), initialized_from=origin)

    def _belongs_to(self) -> dict[str, str]:
        """What a saved state must agree with to be gone on from."""
        data = [[record.path.name, record.captions, record.split] for record in (*self.train, *self.validation)]
        words = [self.tokenizer.word(index) for index in range(len(self.tokenizer))]
        digests = {
            name: hashlib.sha256(json.dumps(part).encode()).hexdigest()
            for name, part in (("data", data), ("words", words))
        }
        return {"recipe": self.recipe.to_json(), **digests}

    def _run_stage(self, stage: Stage) -> None:
        self._say(f"stage {self.progress.stage + 1} of {len(self.recipe.stages)}: {stage}")
        self.captioner.encoder.unfreeze_from(stage.unfreeze_from)
        features = None if stage.reads_pixels else self.cached(self.train)
        validation_features = None if stage.unfreeze_from else self.cached(self.validation)
        average = self._average()
        dataset = CaptionDataset(self.train, self.tokenizer, self.captioner.config, stage, self.recipe.seed, features)
        model, optimizer = self.accelerator.prepare(self._objective(stage, dataset), self._optimizer(stage))
        self.loaded = LoadedState(self.progress, {}, {})
        optimizer_state = OptimizerState(optimizer, average)
        process = self.accelerator.process_index, self.accelerator.num_processes
        order = EpochOrder(len(dataset), self.recipe.batch_size, self.recipe.seed, *process)
        while self.progress.epoch < stage.epochs and self.progress.epochs_without_improvement < self.recipe.patience:
            self._run_epoch(stage, model, optimizer_state, dataset, order)
            self._validate(stage, cast(ImageCaptioner, average.module), validation_features)
            self._save(optimizer_state)

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
            for group in optimizer_state.optimizer.param_groups:
                group["lr"] = group["peak"] * _rate(stage, done, stage.epochs * len(order))
            at.loss_sum += self._step(model, optimizer_state.optimizer, batch, len(at.history) * len(order) + at.step)
            optimizer_state.average.update_parameters(self.captioner)
            at.step += 1
            batches.set_postfix(loss=f"{at.loss_sum / at.step:.3f}", refresh=False)
            if self.log:
                self.log.add_scalar("train/loss", at.loss_sum / at.step, len(at.history) * len(order) + at.step)
            if at.step % SAVE_EVERY == 0 and at.step < len(order):
                at.seconds += time.perf_counter() - began
                began = time.perf_counter()
                self._save(optimizer_state)
        at.seconds += time.perf_counter() - began

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, count: int) -> float:
        """One update; the objective's value. Chance is drawn from (seed, step, process), so it can be repeated."""
        torch.manual_seed((self.recipe.seed * 1_000_003 + count) * 1_009 + self.accelerator.process_index)
        with self.accelerator.autocast():
            found: LossOutput = model(batch.to(self.accelerator.device))
        value, weight = self.accelerator.reduce((found.value, found.weight.to(found.value.device)), "sum")
        value = float(value / weight)
        # DDP averages gradients over processes; this makes that average the mean over all of the step's words.
        loss = found.loss * self.accelerator.num_processes / weight
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The loss is {value} at step {count}; the last saved state is whole. Lower the learning rate."
            )
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(model.parameters(), self.recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return value

    def _validate(self, stage: Stage, captioner: ImageCaptioner, validation_features: FeatureCache | None) -> None:
        """Score the validation split, keep the model where it is the best yet, and move to the next epoch."""
        at = self.progress
        found: list[dict[str, float]] = [{}]
        if self.accelerator.is_main_process:
            captions = caption_records(captioner.eval(), self.validation, features=validation_features)
            found = [score([caption.text for caption in captions], self.validation, meteor=False)]
        scores: dict[str, float] = broadcast_object_list(found)[0]  # every process must take the same decisions
        cider = scores["CIDEr"]
        row = {"stage": at.stage, "epoch": at.epoch, "loss": at.loss_sum / at.step, "seconds": round(at.seconds, 3)}
        at.history.append({**row, **scores})
        self._say(
            f"stage {at.stage + 1} epoch {at.epoch + 1}: loss {row['loss']:.3f}, "
            + ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items())
            + f", {row['seconds']:.0f} s"
        )
        if self.log:
            if cider > at.best_cider:
                captioner.save_pretrained(self.out / "best")
            draw_curves(at.history, self.out / "curves.png")
            for name, value in scores.items():
                self.log.add_scalar(f"validation/{name}", value, len(at.history))
        at.epochs_without_improvement = 0 if cider > at.stage_cider else at.epochs_without_improvement + 1
        at.best_cider, at.stage_cider = max(at.best_cider, cider), max(at.stage_cider, cider)
        at.epoch, at.step, at.loss_sum, at.seconds = at.epoch + 1, 0, 0.0, 0.0

    def _optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        groups = []
        for part, peak in (
            (self.captioner.decoder, stage.learning_rate),
            (self.captioner.encoder, stage.encoder_learning_rate),
        ):
            parameters = [parameter for parameter in part.parameters() if parameter.requires_grad]
            for decayed in (True, False):
                chosen = [parameter for parameter in parameters if (parameter.dim() > 1) == decayed]
                decay = self.recipe.weight_decay if decayed else 0.0
                if chosen:
                    groups.append({"params": chosen, "peak": peak, "lr": peak, "weight_decay": decay})
        # A sampled reward is noisy: the longer memory of its scale keeps self-critical steps small.
        beta2 = 0.98 if stage.objective == "cross_entropy" else 0.999
        optimizer = torch.optim.AdamW(groups, betas=(0.9, beta2), fused=True)
        if self.loaded.optimizer:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": self.loaded.optimizer})
        return optimizer

    def _objective(self, stage: Stage, dataset: CaptionDataset) -> nn.Module:
        cross_entropy = CrossEntropy(self.captioner, label_smoothing=self.recipe.label_smoothing)
        if stage.objective == "cross_entropy":
            return cross_entropy
        references = [[[*ids, self.tokenizer.end_id] for ids in group] for group in dataset.ids]
        cider, bleu = CiderD(references), Bleu4(references)

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
        trained = [parameter.requires_grad for parameter in self.captioner.parameters()]
        average = AveragedModel(self.captioner, multi_avg_fn=_moving_average(self.recipe.average, trained))
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
            save_state(self.state_file, self._belongs_to(), self.progress, self.captioner, optimizer_state)
        self.accelerator.wait_for_everyone()

    def _say(self, message: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(message, file=sys.stderr)


def _rate(stage: Stage, done: int, steps: int) -> float:
    """Fraction of the peak rate for the step after `done` of the stage's `steps`."""
    if done < stage.warmup:
        return (done + 1) / stage.warmup
    through = (done - stage.warmup) / max(1, steps - stage.warmup)
    return stage.final_lr_ratio + (1 - stage.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * through))


Weights = tuple[Tensor, ...] | list[Tensor]


def _moving_average(decay: float, trained: Sequence[bool]) -> Callable[[Weights, Weights, Tensor | int], None]:
    """An exponential moving average whose memory grows with the steps n seen: decay min(decay, (1 + n) / (10 + n)),
    the schedule of TensorFlow's ExponentialMovingAverage, so that it does not drag the first weights along."""

    @torch.no_grad()
    def update(average: Weights, current: Weights, seen: Tensor | int) -> None:
        n = int(seen)
        means, nows = (list(compress(weights, trained)) for weights in (average, current))
        torch._foreach_lerp_(means, nows, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def run(options: argparse.Namespace) -> int:
    """Train as the options of `hf-captioner train` say. Raises CaptionerError, OSError or FloatingPointError."""
    (data,), terms = options.data, options.weights_license
    init = options.init or (None if options.backbone else str(bundled_checkpoint()))
    recipe = Recipe.read(options.recipe or data_path("train/recipes/flickr8k.yaml"))
    records = load_records(Path(data), split_file=options.out / "splits.json", seed=recipe.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        recipe,
        records,
        options.out,
        backbone=options.backbone,
        init=init,
        dataset=options.dataset or Path(data).resolve().stem,
        device=options.device,
    )
    if terms:
        trainer.captioner.weights_license = terms.read_text(encoding="utf-8")
    trainer.run()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hf_captioner.training.trainer", description=__doc__)
    parser.add_argument("recipe", type=Path, help="YAML file; see train/recipes")
    parser.add_argument("--data", nargs=1, required=True, help="images and captions; see train/data.py")
    parser.add_argument("--out", type=Path, required=True, help="where state, logs, curves and best/ go")
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--backbone", help="safetensors file in torchvision's names, or the word torchvision or random")
    begin.add_argument("--init", help="folder or Hub id of a captioner to train further")
    parser.add_argument("--dataset", default="", help="what the card calls the data")
    parser.add_argument("--weights-license", type=Path, help="a text that is saved beside the weights as LICENSE")
    parser.set_defaults(device="auto")
    try:
        return run(parser.parse_args(argv))
    except (CheckpointError, ConfigError, DataError, OSError, ImageError, TokenizerError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
