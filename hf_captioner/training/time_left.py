"""How much time a training run still takes, from what its epochs took so far."""

from collections.abc import Sequence

from hf_captioner.training.checkpointing import Progress
from hf_captioner.training.recipe import Stage


def time_left(stages: Sequence[Stage], progress: Progress, patience: int, afterwards: float) -> str:
    """`at most about 4 minutes left`, after an epoch: epochs to come take what the last one of their kind took.

    An upper bound, since a stage may end early. Stages of a kind that was not measured yet are named instead.
    afterwards: seconds of what follows the training.
    """
    seconds = {_kind(stages[row["stage"]]): row["seconds"] + row["validation_seconds"] for row in progress.history}
    left, unmeasured = afterwards, []
    for index, stage in enumerate(stages[progress.stage :], progress.stage):
        done = progress.epoch if index == progress.stage else 0
        if index == progress.stage and progress.epochs_without_improvement >= patience:
            done = stage.epochs
        if _kind(stage) in seconds:
            left += (stage.epochs - done) * seconds[_kind(stage)]
        else:
            unmeasured.append(str(index + 1))
    more = f", and what stage {' and '.join(unmeasured)} will take" if unmeasured else ""
    return f"at most about {duration(left)} left{more}"


def duration(seconds: float) -> str:
    """40 seconds, 4 minutes, 2.5 hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} second{'s' * (round(seconds) > 1)}"
    return f"{round(seconds / 60)} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"


def _kind(stage: Stage) -> tuple[object, ...]:
    """What the time of an epoch depends on."""
    return stage.unfreeze_from, stage.augment, stage.captions, stage.objective, stage.samples
