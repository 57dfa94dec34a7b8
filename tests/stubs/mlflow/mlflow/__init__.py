"""Stands for MLflow in tests where it is not installed: what a Python model of it is called with, and no more."""
