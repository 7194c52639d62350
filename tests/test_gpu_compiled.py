"""The kernels for GPUs are compiled as for real ones, which takes none: here those with the least memory beside a
multiprocessor (RTX 30, 40 and 50), where a kernel that asks for more does not start."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", minversion="3.3")  # there is none for every system, and older ones take other arguments
CAPABILITY = 86
SHARED = 101_376
"""Bytes, of its programs."""
COMPILED = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mdrn_cli import gpukernels
from mdrn_cli.gpufunctions import LAUNCH

needed = {}
for name, (pixels, warps, stages) in LAUNCH.items():
    kernel = getattr(gpukernels, name)
    known = {"C": 64, "H": 32, "D": 1, "KEEP": True, "N": 3, "UP": True, "BIAS": True, "BP": pixels}
    signature, values, aligned = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            values[(index,)] = known[parameter.name]
        elif parameter.name in ("P", "K", "height", "width", "stride"):
            signature[parameter.name] = "i32"
        else:
            signature[parameter.name] = "*fp32" if parameter.name == "sums" else "*bf16"
            aligned[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, values, aligned)
    options = {"num_warps": warps, "num_stages": stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=options)
    needed[name] = compiled.metadata.shared
print(json.dumps(needed))
"""


def test_kernels_of_the_bundled_width_start_on_gpus_with_the_least_memory(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    ran = [sys.executable, "-c", COMPILED, str(CAPABILITY)]
    done = subprocess.run(ran, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    needed = json.loads(done.stdout)
    assert needed.keys() > {"spread", "fuse_back"}
    assert {name: size for name, size in needed.items() if size > SHARED} == {}
