#!/usr/bin/env python3
"""Reads the sample that unit.checkpoints leaves with plain h5py. Usage: check_h5py.py CHECKPOINTS; exit code 77: no h5py."""

import sys
from pathlib import Path

try:
    import h5py
    import numpy
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

checkpoints = Path(sys.argv[1])
latest = (checkpoints / "latest").read_text(encoding="utf-8").strip()
with h5py.File(checkpoints / latest / "tensors.h5", "r") as file:
    raw = file["model/bf16"]
    assert raw.attrs["dtype"] == b"bfloat16" and raw.dtype == numpy.uint16 and raw.shape == (2, 3)
    values = (raw[:].astype(numpy.uint32) << 16).view(numpy.float32)
    assert (values.ravel() == numpy.arange(6) - 2.5).all()

    moments = file["optimizer/exp_avg/fp32"]
    assert moments.attrs["dtype"] == b"float32" and moments.dtype == numpy.float32
    assert (moments[:] == 0.25 * numpy.arange(4)).all()

    wide = file["model/fp64"]
    assert wide.attrs["dtype"] == b"float64" and wide.dtype == numpy.float64
    assert (wide[:].ravel() == 0.1 * numpy.arange(4)).all() and wide.shape == (1, 2, 2)

    for dataset in (raw, moments, wide):
        assert dataset.chunks is None and dataset.compression is None
        sums = file["checksums" + dataset.name]
        assert sums.dtype == numpy.uint64 and sums.shape == (1,) and sums.attrs["dtype"] == b"uint64"
print("h5py", h5py.version.version, "reads it")
