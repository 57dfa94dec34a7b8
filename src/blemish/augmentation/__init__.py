"""Images made from good images: the same part with synthetic anomalies, or seen a little differently."""
