"""Training losses: cross-entropy of the reference captions, and self-critical training on sampled ones."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training.dataset import Batch, padded

Reward = Callable[[int, Sequence[int]], float]
"""(training image's index, caption ids with the end token if it ended) -> reward."""


class LossOutput(NamedTuple):
    """Sums over a batch; a step divides them by `weight`, summed over all processes."""

    loss: Tensor
    """Differentiated."""
    value: Tensor
    """Reported: the loss, or minus the reward."""
    weight: Tensor
    """Number of words or captions in the sums."""


class CrossEntropy(nn.Module):
    """Label-smoothed cross-entropy of every next word, in nats."""

    def __init__(self, captioner: ImageCaptioner, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.decoder, self.label_smoothing = captioner.encoder, captioner.decoder, label_smoothing

    def forward(self, batch: Batch) -> LossOutput:
        loss = self.loss(self.feature_map(batch), batch)
        return LossOutput(loss, loss.detach(), batch.lengths.sum())

    def feature_map(self, batch: Batch) -> FeatureMap:
        """The batch's feature map, computed where it holds pixels."""
        values = batch.images
        if values.dim() == 4:
            values = self.encoder(values.contiguous(memory_format=torch.channels_last)).values
        return FeatureMap(values, self.encoder.height, self.encoder.width)

    def loss(self, features: FeatureMap, batch: Batch) -> Tensor:
        """The loss, summed over the batch's words."""
        logits, _ = self.decoder.teacher_forced(features, batch.words, batch.lengths)
        wanted = pack_padded_sequence(batch.targets, batch.lengths, batch_first=True, enforce_sorted=False).data
        return F.cross_entropy(logits.data.float(), wanted, label_smoothing=self.label_smoothing, reduction="sum")


class SelfCritical(nn.Module):
    """Self-critical sequence training (Rennie et al. 2017) with several samples an image.

    loss = -sum over sampled captions of (r - b) log p(caption), r its reward, b the mean reward of the image's
    other samples (Luo 2020), plus `xe_weight` times the cross-entropy of the reference captions, both per caption.
    p is the model's distribution at `temperature`, in sampling and in the loss: at temperature 1 a label-smoothed model
    samples a stray word in most captions.
    """

    def __init__(
        self,
        cross_entropy: CrossEntropy,
        reward: Reward,
        *,
        samples: int,
        max_length: int,
        xe_weight: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.cross_entropy, self.reward = cross_entropy, reward
        self.samples, self.max_length, self.xe_weight, self.temperature = samples, max_length, xe_weight, temperature

    def forward(self, batch: Batch) -> LossOutput:
        decoder, features = self.cross_entropy.decoder, self.cross_entropy.feature_map(batch)
        captions = self._sample(features)
        owners = batch.indices.repeat_interleave(self.samples).tolist()
        rewards = torch.tensor([self.reward(owner, ids) for owner, ids in zip(owners, captions, strict=True)])
        rewards = rewards.to(features.values.device).view(-1, self.samples)
        others = (rewards.sum(1, keepdim=True) - rewards) / (self.samples - 1)
        words, targets, lengths = padded(captions)
        logits, _ = decoder.teacher_forced(features, words.to(rewards.device), lengths)
        advantages = (rewards - others).view(-1, 1).expand(targets.shape)
        chosen, advantage = (
            pack_padded_sequence(part, lengths, batch_first=True, enforce_sorted=False).data
            for part in (targets.to(rewards.device), advantages)
        )
        loss = (advantage * F.cross_entropy(logits.data.float() / self.temperature, chosen, reduction="none")).sum()
        if self.xe_weight:
            share = rewards.numel() / len(batch.lengths)
            loss = loss + self.xe_weight * share * self.cross_entropy.loss(features, batch)
        return LossOutput(loss, -rewards.sum(), torch.tensor(rewards.numel(), device=rewards.device))

    @torch.no_grad()
    def _sample(self, features: FeatureMap) -> list[list[int]]:
        """Sample `samples` captions per image without dropout; each ends with the end token unless it was cut at
        `max_length` words."""
        decoder, end = self.cross_entropy.decoder, CaptionTokenizer.end_id
        was_training = decoder.training
        decoder.eval()
        state = decoder.start(FeatureMap(features.values.detach(), features.height, features.width))
        rows = torch.arange(len(features.values), device=features.values.device).repeat_interleave(self.samples)
        state, words = state.select(rows), torch.full_like(rows, CaptionTokenizer.start_id)
        sampled = []
        banned = [CaptionTokenizer.pad_id, CaptionTokenizer.start_id, CaptionTokenizer.unknown_id]
        ended = torch.zeros_like(rows, dtype=torch.bool)
        for _ in range(self.max_length + 1):
            step = decoder.step(words, state)
            probabilities = (step.log_probs / self.temperature).softmax(-1)
            probabilities[:, banned] = 0
            words, state = torch.multinomial(probabilities, 1).squeeze(1), step.state
            sampled.append(words)
            ended |= words == end
            if bool(ended.all()):
                break
        decoder.train(was_training)
        captions = torch.stack(sampled, 1).tolist()
        return [ids[: ids.index(end) + 1] if end in ids else ids[: self.max_length] for ids in captions]
