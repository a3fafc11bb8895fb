"""A user's type checker understands the public API, and finds what is wrong."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "typed_user.py"


def test_a_users_script_is_typed_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    right, wrong = SCRIPT.read_text(), tmp_path / "wrong.py"
    wrong.write_text(right.replace("num_beams=5", "beams=5"))
    line = right[: right.index("num_beams=5")].count("\n") + 1
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run([*command, SCRIPT, wrong], capture_output=True, text=True, cwd=SCRIPT.parent.parent)
    assert SCRIPT.name not in done.stdout, done.stdout
    assert f'wrong.py:{line}: error: Unexpected keyword argument "beams"' in done.stdout, done.stdout
