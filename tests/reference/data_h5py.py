"""Makes data_h5py.h5 as people make data sets with h5py, to check that such files are read.

    pip install h5py==3.16.0 numpy
    python3 data_h5py.py
"""

import pathlib

import h5py
import numpy as np

n, h, w, c = 20, 2, 5, 3
x = (np.arange(n * c * h * w) * 7 % 200).astype(np.uint8).reshape(n, c, h, w)
path = pathlib.Path(__file__).resolve().parent / "data_h5py.h5"
with h5py.File(path, "w", libver="earliest") as f:
    f.attrs["title"] = "a file made by h5py"
    train = f.create_dataset("X_train", data=x, compression="gzip", shuffle=True, chunks=(8, c, h, w), maxshape=(None, c, h, w))
    train.attrs["levels"] = np.int64(200)
    train.attrs["credit"] = "Zoë"
    train.attrs["fixed"] = np.bytes_("bytes")
    train.attrs["mean"] = np.float32(0.5)
    train.attrs["names"] = ["a", "b"]
    train.attrs["flag"] = True
    f.create_dataset("X_test", data=x[:4].astype(">i4"))
    f.create_dataset("lzf", data=x[:10], compression="lzf")
    f["y_train"] = np.arange(n) % 10
    f.create_group("meta")["note"] = "text"
    f["meta/again"] = h5py.SoftLink("/X_train")
    f["meta/gone"] = h5py.SoftLink("/nothing")
    f["loop"] = h5py.SoftLink("/")
