"""Does a caption say what people agree on?"""

from collections import Counter
from collections.abc import Sequence

AGREEMENT = 3
"""People who use a word of one image: then they agree on it."""
COMMON = frozenset(
    """
    the and with that are his her its for from into near next some two three one very their has have there
    this who while over front top side on in of to at by up out off down large small man woman people person
    standing sitting white black red blue green
    """.split()
)
"""Words that tell little of what an image shows: on these agreement is cheap."""


def says_agreed_word(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[bool]:
    """Whether the caption says one of the image's agreed words, for each image that has any.

    A word is agreed on where AGREEMENT or more of the image's references hold it, has three letters or more and is not
    COMMON. So an image of fewer references than that has none.
    """
    found = []
    for caption, group in zip(captions, references, strict=True):
        used = Counter(word for reference in group for word in {w.strip(".,'\"").lower() for w in reference.split()})
        agreed = {word for word, people in used.items() if people >= AGREEMENT and len(word) > 2} - COMMON
        if agreed:
            found.append(not agreed.isdisjoint(caption.split()))
    return found
