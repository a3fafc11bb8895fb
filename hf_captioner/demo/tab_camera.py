"""The tab for the camera: captioned again and again."""

import time
from typing import Any

import gradio as gr

from hf_captioner import ImageCaptioner
from hf_captioner.demo.visits import TOO_LONG, Visits
from hf_captioner.errors import GenerationStopped

FRAME_INTERVAL = 0.1
"""Seconds between two frames; while one is captioned only the newest waits."""
MAX_CAMERAS = 4
"""Visitors whose cameras are captioned at once."""
TURN = 20
"""Seconds of a visitor's camera after which it is the next one's turn, if another waits."""
FRAME = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
"""What is asked of the camera; the model reads no more."""


def camera_tab(captioner: ImageCaptioner, visits: Visits) -> None:
    """Build the tab inside the page being built."""
    times = gr.State(())
    with gr.Row():
        camera = gr.Image(
            sources=["webcam"],
            streaming=True,
            label="Camera",
            buttons=[],
            type="numpy",
            height=420,
            min_width=280,
            webcam_options=gr.WebcamOptions(mirror=False, constraints=FRAME),
        )
        with gr.Column(min_width=280):
            caption = gr.Textbox(label="Caption", interactive=False, lines=3, elem_id="camera-caption")
            rate = gr.Markdown("Press Record to caption what the camera sees, again and again.")

    def caption_frame(frame: Any, times: tuple[float, ...], visitor: gr.Request) -> tuple[str, tuple[float, ...], str]:
        criteria = visits.stopping_criteria(visitor)
        try:
            caption = captioner.caption(frame, stopping_criteria=criteria, num_return_sequences=1)
        except GenerationStopped:
            return TOO_LONG, (), ""
        times = (*times[-9:], time.monotonic())
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
        return caption.text, times, f"{rate:.1f} captions a second"

    camera.stream(
        caption_frame,
        [camera, times],
        [caption, times, rate],
        stream_every=FRAME_INTERVAL,
        concurrency_limit=MAX_CAMERAS,
        time_limit=TURN,
        show_progress="hidden",
        api_visibility="private",
    )
