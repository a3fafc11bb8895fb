"""Training that saves its state after every step."""

import train.fit


def main() -> int:
    train.fit.SAVE_EVERY = 1
    return train.fit.main()
