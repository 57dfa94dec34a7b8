"""Does a fitted model fail silently? Identity mapping, over-fitting, domain gap, and cost that grows with the data."""

from blemish.diagnosis.diagnose import diagnose
from blemish.diagnosis.signs import Diagnosis, InspectedImage, Measure, Sign, Thresholds

__all__ = ["Diagnosis", "InspectedImage", "Measure", "Sign", "Thresholds", "diagnose"]
