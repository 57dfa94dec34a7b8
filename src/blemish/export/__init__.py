"""Fitted models as bundles that `blemish.runtime` inspects with, without torch."""
