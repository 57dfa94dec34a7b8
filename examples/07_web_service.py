"""One model behind FastAPI: python 07_web_service.py [GOOD_FOLDER IMAGE]"""

import sys
from pathlib import Path

from fastapi import FastAPI, HTTPException, UploadFile
from fastapi.testclient import TestClient

from blemish import Inspector
from blemish.data import draw_cells
from blemish.errors import BlemishError

cells, others = draw_cells(4, 2) if len(sys.argv) < 3 else ([], [])
inspector = Inspector(image_size=224).fit([cell.image for cell in cells] or sys.argv[1])
app = FastAPI()


@app.post("/inspect")
def inspect(picture: UploadFile) -> dict:  # FastAPI calls it in many threads; they share the inspector
    try:
        return inspector.inspect(picture.file).to_dict() | {"file": picture.filename}
    except BlemishError as error:
        raise HTTPException(422, str(error)) from error


client = TestClient(app)  # for people: uvicorn.run(app)
for content in (Path(others[0].image if others else sys.argv[2]).read_bytes(), b"no picture"):
    reply = client.post("/inspect", files={"picture": ("part.png", content)})
    print(reply.status_code, reply.json().get("verdict", reply.json().get("detail")))
