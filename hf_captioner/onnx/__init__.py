"""A captioner as ONNX graphs, and ONNX Runtime to compute them."""
