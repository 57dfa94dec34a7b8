"""Encoders with two towers, of images and of sentences, whose embeddings share a space."""
