"""The tab for many photographs: a table that fills as captions arrive, to be corrected and taken away."""

import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from gradio.utils import sanitize_value_for_csv

from hf_captioner import ImageCaptioner, ImageError
from hf_captioner.demo.uploads import Upload, cannot_read, pictures
from hf_captioner.images import open_image

COLUMNS = {"photo": "120px", "caption": "460px", "confidence": "130px", "file": "200px", "problem": "300px"}
"""Headings of the table and their widths."""
UPLOAD_TTL = ("file", "caption", "confidence", "problem")
"""What is taken away of it."""
Table = Sequence[Sequence[str]]
THUMBNAIL = 96
MOST = 500
"""Photographs taken at a time."""
LINES = 8
"""Photographs captioned between two looks at the table."""


def rows(captioner: ImageCaptioner, uploads: Sequence[Upload]) -> Iterator[list[str]]:
    """A row a photograph, in order; a file that is no picture is a row that says why."""
    caption: Any
    paths = [upload.path for upload in uploads]
    for upload, caption in zip(uploads, captioner.stream(paths, batch_size=LINES, num_return_sequences=1), strict=True):
        if isinstance(caption, ImageError):
            yield ["", "", "", upload.name, cannot_read(caption, upload)]
        else:
            sure = "" if caption.confidence is None else f"{caption.confidence:.0%}"
            yield [_thumbnail(upload.path), caption.text, sure, upload.name, ""]


def too_many(uploads: Sequence[Upload]) -> str:
    return f"{len(uploads)} photographs are too many; give at most {MOST} at a time."


def _thumbnail(path: str) -> str:
    picture, file = open_image(path, min_side=2 * THUMBNAIL), io.BytesIO()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    picture.save(file, "JPEG")
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _kept(table: Table) -> list[dict[str, str]]:
    named = [dict(zip(COLUMNS, row, strict=True)) for row in table]
    return [{column: row[column] for column in UPLOAD_TTL} for row in named]


def as_csv(table: Table) -> str:
    """What a spreadsheet would take for a formula is made text."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(UPLOAD_TTL)
    writer.writerows([sanitize_value_for_csv(cell) for cell in row.values()] for row in _kept(table))
    return file.getvalue()


def as_json(table: Table) -> str:
    return json.dumps(_kept(table), indent=1, ensure_ascii=False)


def as_metadata(table: Table) -> str:
    """`metadata.jsonl` of an image folder, as `train/fit.py` reads it."""
    lines = [{"file_name": row["file"], "text": row["caption"]} for row in _kept(table) if row["caption"]]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


SAVE = """(text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text]));
  link.download = "%s";
  link.click();
}"""
FILES = {"captions.csv": as_csv, "captions.json": as_json, "metadata.jsonl": as_metadata}


def batch_tab(captioner: ImageCaptioner) -> None:
    """Build the tab inside the page being built."""
    files = pictures(file_types=["image"], label="Photographs", height=180, elem_id="files")
    with gr.Row():
        start = gr.Button("Caption all", variant="primary")
        stop = gr.Button("Stop")
    progress = gr.Markdown()
    table = gr.Dataframe(
        headers=list(COLUMNS),
        datatype=["html", "str", "str", "str", "str"],
        type="array",
        column_widths=list(COLUMNS.values()),
        static_columns=[index for index, column in enumerate(COLUMNS) if column != "caption"],
        wrap=True,
        buttons=[],
        interactive=True,
        row_count=0,
        label="Captions: double-click one to correct it",
        elem_id="table",
    )
    with gr.Row():
        downloads = {name: gr.Button(name) for name in FILES}
    text = gr.Textbox(visible="hidden")

    def fill(uploads: list[Upload]) -> Iterator[list[Any]]:
        if not uploads:
            gr.Warning("There is no photograph; drop some files first.")
            return
        if len(uploads) > MOST:
            gr.Warning(too_many(uploads))
            return
        done: list[list[str]] = []
        for row in rows(captioner, uploads):
            done.append(row)
            if len(done) % LINES == 0 or len(done) == len(uploads):
                failed = sum(row["caption"] == "" for row in _kept(done))
                note = f"{len(done)} of {len(uploads)}" + (f", {failed} without a caption" if failed else "")
                # A correction made now would be lost with the next rows.
                yield [gr.Dataframe(done, interactive=len(done) == len(uploads)), note]

    filling = start.click(fill, files, [table, progress], api_visibility="private")
    stop.click(lambda: gr.Dataframe(interactive=True), None, table, cancels=filling, api_visibility="private")
    for name, button in downloads.items():
        # The file is made in the browser, so that the server keeps none.
        button.click(FILES[name], table, text, api_visibility="private").then(None, text, js=SAVE % name)
