"""Errors of the package, wherever they are raised."""

import pickle

import pytest

from hf_captioner import errors
from hf_captioner.errors import MAX_MESSAGE, CaptionerError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CaptionerError)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("message", ["", "a.jpg: no.", "x" * 5000, "\0" * 1500, "\N{RIGHT-TO-LEFT OVERRIDE}gpj.a"])
def test_an_error_of_another_process_is_the_same_here(kind: type[CaptionerError], message: str) -> None:
    """A pool of processes that cannot read one waits for ever."""
    error = kind(message)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error)
    assert len(str(error)) <= MAX_MESSAGE and str(error).isprintable()


def test_an_extra_that_is_missing_is_the_same_in_another_process() -> None:
    with pytest.raises(errors.MissingExtraError) as raised:
        errors.require_extra("Flying", "wings", "no_such_package")
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again) == str(raised.value) and errors.install_line("wings") in str(again)
