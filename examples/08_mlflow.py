"""A model as MLflow's pyfunc: python 08_mlflow.py [GOOD_FOLDER IMAGE ...]"""

import sys
from tempfile import TemporaryDirectory

import mlflow.pyfunc

from blemish import Failure, Inspector
from blemish.data import draw_cells


class BlemishModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.inspector = Inspector.load(context.artifacts["model"])

    def predict(self, context, model_input, params=None):
        paths = model_input["path"] if hasattr(model_input, "columns") else model_input  # a DataFrame, or a list
        found = self.inspector.inspect_many([str(path) for path in paths])
        return [vars(one) if isinstance(one, Failure) else one.to_dict() for one in found]


cells, others = draw_cells(4, 2) if len(sys.argv) < 3 else ([], [])
with TemporaryDirectory() as folder:
    saved = Inspector(image_size=224).fit([cell.image for cell in cells] or sys.argv[1]).save(f"{folder}/model")
    mlflow.pyfunc.save_model(f"{folder}/packed", python_model=BlemishModel(), artifacts={"model": str(saved)})
    model = mlflow.pyfunc.load_model(f"{folder}/packed")
    for row in model.predict([str(cell.image) for cell in others] or sys.argv[2:]):
        print(row["file"], row.get("verdict", row.get("error")))
