"""The one dependency that depends on the machine: ONNX Runtime for CPU or for CUDA.

The two distributions carry the same module and cannot be installed together, and an extra can only
add to the base requirements. So the choice is made when the package is built:

    pip install .                       onnxruntime
    HICOM_EDGE_GPU=1 pip install .      onnxruntime-gpu, and its CUDA and cuDNN

Before 1.26 the CUDA provider does not run Attention as a language model has it. Those versions are
all that there is for Python 3.10, and run bundles of opset 18 to 20 (docs/onnxruntime_gpu.md).
"""

import os

from setuptools import setup
from setuptools.command.build_py import build_py

GPU = os.environ.get("HICOM_EDGE_GPU") == "1"
ONNXRUNTIME = ["onnxruntime>=1.23"]
if GPU:
    ONNXRUNTIME = [
        "onnxruntime-gpu[cuda,cudnn]>=1.26; python_version >= '3.11'",
        "onnxruntime-gpu[cuda,cudnn]>=1.23; python_version < '3.11'",
    ]


class BuildWithoutSetup(build_py):
    """The root is the package, but this file is no part of it."""

    def find_package_modules(self, package, package_dir):
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] != "setup"]


setup(
    cmdclass={"build_py": BuildWithoutSetup},
    install_requires=[
        "numpy>=1.24",
        *ONNXRUNTIME,
        "av>=14",
        "pillow>=10",
        "tokenizers>=0.20",
        "typer>=0.20",
        "rich>=13",
    ],
)
