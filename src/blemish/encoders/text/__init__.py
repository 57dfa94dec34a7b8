"""Sentences about parts as vectors: what to say of a category (prompts.py), and frozen networks that read it."""
