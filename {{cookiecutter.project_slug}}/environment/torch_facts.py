"""Print facts about torch as JSON: run once per new environment, since it takes seconds."""

import json

import torch

build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
print(json.dumps({"torch": torch.__version__, "build": build}))
