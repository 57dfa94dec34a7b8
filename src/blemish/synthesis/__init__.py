"""Pictures made from good pictures: the same part with made-up defects, or seen a little differently."""
