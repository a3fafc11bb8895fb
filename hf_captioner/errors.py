"""Every exception of the package. Each message is one sentence: what was found, what was expected, what to do."""

from importlib.util import find_spec

SOURCE = "git+https://github.com/hf-captioner/hf-captioner"
"""Where pip finds the package, which is on no registry."""


def install_line(extra: str) -> str:
    """The command that installs the package with this extra."""
    return f"pip install 'hf-captioner[{extra}] @ {SOURCE}'"


MAX_MESSAGE = 2000
"""Characters of a message, which may repeat what a file holds."""


def one_line(text: str) -> str:
    r"""Text that breaks no line and paints no terminal: of what cannot be printed it has the escape, `\u001b`."""
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)


def shown(value: object) -> str:
    """A value as a message repeats it: at most 100 characters, whatever a file holds."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class CaptionerError(ValueError):
    """The base of them all: catch it to catch whatever the package itself raises.

    What a message repeats of names and files is `one_line`, cut at MAX_MESSAGE.
    """

    def __init__(self, message: str = "") -> None:
        line = one_line(message[: MAX_MESSAGE + 1])
        # The same again of what it gives, for an error that another process raised is made anew of its message.
        super().__init__(line if len(line) <= MAX_MESSAGE else f"{line[: MAX_MESSAGE - 3]}...")


class ConfigError(CaptionerError):
    """A setting that cannot be used."""


class BackboneError(ConfigError):
    """ImageNet weights that are not there, or are another network's."""


class MissingExtraError(ConfigError):
    """A command or an option that needs packages which are not installed."""


def require_extra(what: str, extra: str, *modules: str) -> None:
    """Raise MissingExtraError unless these top-level modules, which the extra brings, are installed; imports none."""
    if not all(map(find_spec, modules)):
        raise MissingExtraError(f"{what} needs packages that are not installed; run: {install_line(extra)}")


class CheckpointError(CaptionerError):
    """A checkpoint that cannot be found, read, written or pushed."""


class TokenizerError(CaptionerError):
    """A tokenizer that cannot be built or read."""


class ImageError(CaptionerError):
    """An image that cannot be read; the message names it."""


class GenerationStopped(CaptionerError):
    """Captions that were not finished, because their caller's stopping criteria said so."""


class TrainingError(CaptionerError):
    """A training run that cannot go on."""


class DataError(CaptionerError):
    """A data set that cannot be used; the message names the first ten faults and their count."""
