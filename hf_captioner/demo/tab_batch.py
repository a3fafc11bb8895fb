"""The tab for many images: a table that fills as captions arrive, to be corrected and downloaded."""

import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence

import gradio as gr

from hf_captioner import ImageCaptioner, ImageError
from hf_captioner.bulk.printable import csv_cell
from hf_captioner.demo.session import percent
from hf_captioner.demo.uploads import Upload, files_input, upload_error
from hf_captioner.demo.visits import TOO_LONG, Visits
from hf_captioner.errors import GenerationStopped
from hf_captioner.images import open_image
from hf_captioner.modeling.generation import StoppingCriteria

COLUMN_WIDTHS = {"photo": "120px", "caption": "460px", "confidence": "130px", "file": "200px", "problem": "300px"}
EXPORTED_COLUMNS = ("file", "caption", "confidence", "problem")
THUMBNAIL_SIDE = 96
MAX_FILES = 500
"""Images taken at a time."""
BATCH_SIZE = 8
"""Images captioned between two updates of the table."""
RUNNING, STOPPED = "Captioning: ", "Stopped: "
Table = Sequence[Sequence[str]]

DOWNLOAD = """(text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text]));
  link.download = "%s";
  link.click();
}"""


def caption_rows(
    captioner: ImageCaptioner, uploads: Sequence[Upload], *, stopping_criteria: StoppingCriteria | None = None
) -> Iterator[list[str]]:
    """A row of COLUMN_WIDTHS for each upload, in order; an unreadable file's row says why. Raises GenerationStopped."""
    results = captioner.stream(
        [upload.path for upload in uploads],
        batch_size=BATCH_SIZE,
        stopping_criteria=stopping_criteria,
        num_return_sequences=1,
    )
    for upload, result in zip(uploads, results, strict=True):
        if isinstance(result, ImageError):
            yield ["", "", "", upload.name, upload_error(result, upload)]
        else:
            confidence = "" if result.confidence is None else percent(result.confidence)
            yield [_thumbnail(upload.path), result.text, confidence, upload.name, ""]


def too_many(uploads: Sequence[Upload]) -> str:
    return f"{len(uploads)} photos are too many; upload at most {MAX_FILES} at a time."


def _thumbnail(path: str) -> str:
    image, file = open_image(path, min_side=2 * THUMBNAIL_SIDE), io.BytesIO()
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    image.save(file, "JPEG")
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _exported(table: Table) -> list[dict[str, str]]:
    rows = [dict(zip(COLUMN_WIDTHS, row, strict=True)) for row in table]
    return [{column: row[column] for column in EXPORTED_COLUMNS} for row in rows]


def as_csv(table: Table) -> str:
    """With an apostrophe before whatever a spreadsheet would run as a formula."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(EXPORTED_COLUMNS)
    writer.writerows([csv_cell(cell) for cell in row.values()] for row in _exported(table))
    return file.getvalue()


def as_json(table: Table) -> str:
    return json.dumps(_exported(table), indent=1, ensure_ascii=False)


def as_metadata(table: Table) -> str:
    """`metadata.jsonl` of an image folder, which `hf_captioner.training` reads."""
    lines = [{"file_name": row["file"], "text": row["caption"]} for row in _exported(table) if row["caption"]]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


DOWNLOADS = {
    "Download CSV": ("captions.csv", as_csv),
    "Download JSON": ("captions.json", as_json),
    "Download training data": ("metadata.jsonl", as_metadata),
}
"""Label of each button -> the file's name, and what makes its content of the table."""


def batch_tab(captioner: ImageCaptioner, visits: Visits) -> None:
    """Build the tab inside the page being built."""
    files = files_input(file_types=["image"], label="Photos", height=180, elem_id="files")
    with gr.Row():
        start = gr.Button("Caption all", variant="primary")
        stop = gr.Button("Stop")
    progress = gr.Markdown()
    table = _table()
    with gr.Row():
        buttons = {label: gr.Button(label) for label in DOWNLOADS}
    text = gr.Textbox(visible="hidden")

    def fill(uploads: list[Upload], visitor: gr.Request) -> Iterator[tuple[gr.Dataframe, str]]:
        if not uploads:
            gr.Warning("Upload some photos first.")
            return
        if len(uploads) > MAX_FILES:
            gr.Warning(too_many(uploads))
            return
        criteria = visits.stopping_criteria(visitor, many=True)
        yield from _updates(caption_rows(captioner, uploads, stopping_criteria=criteria), len(uploads))

    filling = start.click(fill, files, [table, progress], api_visibility="private")
    cancelling = stop.click(None, cancels=filling, api_visibility="private")
    cancelling.then(_stopped, progress, [table, progress], api_visibility="private")
    for label, (name, content) in DOWNLOADS.items():
        # The file is made in the browser, so that the server keeps none.
        buttons[label].click(content, table, text, api_visibility="private").then(None, text, js=DOWNLOAD % name)


def _table() -> gr.Dataframe:
    return gr.Dataframe(
        headers=list(COLUMN_WIDTHS),
        datatype=["html", "str", "str", "str", "str"],
        type="array",
        column_widths=list(COLUMN_WIDTHS.values()),
        static_columns=[index for index, column in enumerate(COLUMN_WIDTHS) if column != "caption"],
        wrap=True,
        buttons=[],
        interactive=True,
        row_count=0,
        label="Captions: double-click one to correct it",
        elem_id="table",
    )


def _updates(arriving: Iterator[list[str]], count: int) -> Iterator[tuple[gr.Dataframe, str]]:
    """The table and its progress after each batch."""
    rows: list[list[str]] = []
    try:
        for row in arriving:
            rows.append(row)
            if len(rows) % BATCH_SIZE == 0 or len(rows) == count:
                # The next rows would overwrite a correction made before they arrive.
                running = len(rows) < count
                yield gr.Dataframe(rows, interactive=not running), _progress(RUNNING * running, rows, count)
    except GenerationStopped:
        gr.Warning(TOO_LONG)
        yield gr.Dataframe(rows, interactive=True), _progress(STOPPED, rows, count)


def _progress(state: str, rows: Table, count: int) -> str:
    failed = sum(row["caption"] == "" for row in _exported(rows))
    return f"{state}{len(rows)} of {count}" + (f", {failed} without a caption" if failed else "")


def _stopped(progress: str) -> tuple[gr.Dataframe, str]:
    return gr.Dataframe(interactive=True), progress.replace(RUNNING, STOPPED)
