"""The page as a Space on the Hub: `python app.py`. HF_CAPTIONER_MODEL names another model than the one beside it."""

import os
from pathlib import Path

from hf_captioner.demo.app import serve

if __name__ == "__main__":
    serve(os.environ.get("HF_CAPTIONER_MODEL"), examples=Path(__file__).parent / "examples")
