"""Models in `.rst` files: they are read and checked here, and a typed Python module is written for each model.

Needs the extra `models`. The modules that are written do not.
"""

try:
    import lark as _lark
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "Reading .rst files of models needs lark: pip install 'durably[models]'.", name=error.name
    ) from None

from durably.model_files.declarations import ModelDeclaration as ModelDeclaration
from durably.model_files.declarations import ModelFile as ModelFile
from durably.model_files.generating import GeneratedModules as GeneratedModules
from durably.model_files.generating import GenerationError as GenerationError
from durably.model_files.generating import generate as generate
from durably.model_files.generating import read_folder as read_folder
from durably.model_files.graphing import graph_of_model as graph_of_model
from durably.model_files.problems import ModelFileError as ModelFileError
from durably.model_files.reading import read_file as read_file

__all__ = [
    "GeneratedModules", "GenerationError", "ModelDeclaration", "ModelFile", "ModelFileError", "generate",
    "graph_of_model", "read_file", "read_folder",
]  # fmt: skip

del _lark
