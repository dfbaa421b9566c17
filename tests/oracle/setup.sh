#!/bin/sh
# usage: setup.sh VENV_DIR
# Python environment for make_transformers.py and make_megatron.py: torch (CPU use, without the nvidia wheels),
# transformers and megatron-core.  Needs python3 (3.10 or later), cc, readelf and nm.  pip reports the left-out nvidia
# packages as a dependency conflict: that is expected.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python3 -m venv "$1"
"$1/bin/pip" install -q --no-deps torch==2.15.0 megatron-core==0.16.1
"$1/bin/pip" install -q numpy==2.4.6 typing_extensions sympy networkx jinja2 fsspec filelock setuptools packaging
"$1/bin/pip" install -q transformers==5.23.0 safetensors==0.8.0
"$1/bin/python" "$here/make_cuda_stubs.py"
"$1/bin/python" -c 'import torch, transformers; print(torch.__version__, transformers.__version__, torch.cuda.is_available())'
