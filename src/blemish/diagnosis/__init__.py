"""Does a fitted model fail silently? Five signs of failure, see `diagnose`."""

from blemish.diagnosis.diagnose import diagnose
from blemish.diagnosis.signs import Diagnosis, InspectedImage, Measure, Sign, Thresholds

__all__ = ["Diagnosis", "InspectedImage", "Measure", "Sign", "Thresholds", "diagnose"]
