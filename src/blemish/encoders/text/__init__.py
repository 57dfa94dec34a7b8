"""Prompts about a category (prompts.py), and frozen text encoders that embed them."""
