"""Fuzz a reader of strangers' files, guided by coverage: `python -m tests.fuzz TARGET [SECONDS]` (needs atheris)."""

import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["hf_captioner"]):
    from tests.fuzzing import CORPUS, TARGETS, check

LIMITS = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=65536"]
"""Of one input: seconds, MiB (torch and Gradio take half of it), bytes."""


def main() -> None:
    target, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "600"
    if target not in TARGETS:
        sys.exit(f"There is no target {target}; there are {', '.join(TARGETS)}.")
    with tempfile.TemporaryDirectory() as found:
        arguments = [f"-max_total_time={seconds}", "-print_final_stats=1", *LIMITS, found, str(CORPUS / target)]
        atheris.Setup([sys.argv[0], *arguments], lambda data: check(target, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
