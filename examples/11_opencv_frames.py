"""Inspect a camera or a video by OpenCV: python 11_opencv_frames.py [GOOD_FOLDER VIDEO]"""

import sys

from blemish import Inspector, from_bgr
from blemish.data import draw_cells, load_image


def frames(source):
    import cv2

    camera = cv2.VideoCapture(int(source) if source.isdigit() else source)
    while (read := camera.read())[0]:  # OpenCV's frames are blue first
        yield from_bgr(read[1])


cells, others = draw_cells(4, 4) if len(sys.argv) < 3 else ([], [])
shown = (from_bgr(load_image(cell.image)[..., ::-1]) for cell in others) if others else frames(sys.argv[2])
inspector = Inspector(image_size=224).fit([cell.image for cell in cells] or sys.argv[1])
for number, prediction in enumerate(inspector.inspect_many(shown)):  # each as soon as it is there
    print(number, prediction.verdict, f"{prediction.seconds:.2f} s")
