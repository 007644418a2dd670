"""Print facts about the framework as JSON: run once per new environment, since it takes seconds."""

import json

try:
    import torch
except ImportError:
    import tensorflow

    name, version = "tensorflow", tensorflow.__version__
    cuda = tensorflow.sysconfig.get_build_info().get("cuda_version")
else:
    name, version, cuda = "torch", torch.__version__, torch.version.cuda

build = f"built for CUDA {cuda}" if cuda else "CPU build"
print(json.dumps({"framework": f"{name} {version}", "build": build}))
