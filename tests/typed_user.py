"""A user's script that touches the whole public API; `mypy --strict` reads it (test_types.py), and nothing runs it."""

from pathlib import Path

import hf_captioner
from hf_captioner import Caption, CaptionerConfig, GenerationConfig, ImageCaptioner, ImageError, Word

captioner = ImageCaptioner.from_pretrained("me/mine", revision="v2", device="auto", dtype="float32")
config: CaptionerConfig = captioner.config
captioner.generation_config = GenerationConfig(num_beams=3)
one: Caption = captioner.caption("dog.jpg", num_beams=5, prefix="a dog", bad_words=["cat"])
many: list[Caption] = captioner.caption([Path("a.jpg"), b"bytes"], num_return_sequences=3, progress=True)
word: Word = one.words[0]
numbers: tuple[str, float, float | None, int] = (word.text, word.probability, one.confidence, word.attention.size)
candidates: tuple[Caption, ...] = one.candidates
one.overlay(word=2).save("overlay.png")
one.contact_sheet(image="dog.jpg").save("sheet.png")
for result in captioner.stream(hf_captioner.iter_images("holiday", ["a.jpg"]), batch_size=32, do_sample=True):
    text: str = str(result) if isinstance(result, ImageError) else result.text
failed: int = hf_captioner.caption_many(captioner, hf_captioner.iter_images("holiday"), "captions.jsonl").failed
captioner.save_pretrained("out", repo_id="me/mine")
try:
    url: str = captioner.push_to_hub("me/mine", private=True)
except (hf_captioner.CheckpointError, hf_captioner.ConfigError) as error:
    print(error)
