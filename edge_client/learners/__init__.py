"""Learners, found by name: numpy, torch, onnx."""
