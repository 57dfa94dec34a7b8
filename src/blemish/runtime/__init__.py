"""Inspects with exported bundles: numpy, pillow and one engine (ONNX Runtime or OpenVINO), no torch.

from blemish.runtime import Runtime

prediction = Runtime("bundle").inspect("part.png")
"""

from blemish.runtime.runtime import Runtime as Runtime
from blemish.types import Failure as Failure
