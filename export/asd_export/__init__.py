"""A trained encoder becomes an ONNX bundle that the agent runs."""
