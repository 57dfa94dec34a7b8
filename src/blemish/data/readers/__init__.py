"""Readers of image files, one for each kind: Pillow, TIFF, DICOM, numpy arrays. decoding.py chooses among them."""
