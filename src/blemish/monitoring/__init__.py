"""Whether a line still is what the model learned: drift of scores and pictures, and a fair sample of reviewed parts."""
