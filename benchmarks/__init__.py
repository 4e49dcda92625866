"""Measurements: kernels by pytest-benchmark, whole passes beside their peers."""
