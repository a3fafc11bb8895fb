"""A captioner as ONNX graphs, and ONNX Runtime to compute them."""

import os

# Read when ONNX Runtime is imported, which would else note an identity of this machine in its temporary folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
