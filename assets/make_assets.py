#!/usr/bin/env python3
"""Makes the embedded data sets from their published packages. Standard library only.

    pip download scikit-learn==1.9.1 --no-deps            # PyPI: sklearn/datasets/data/digits.csv.gz is inside the wheel
    apt-get download dataset-fashion-mnist                # Debian main
    dpkg -x dataset-fashion-mnist_*.deb fashion
    python3 make_assets.py scikit_learn-*.whl fashion/usr/share/datasets/fashion-mnist

Writes, beside itself, IDX files (the format of MNIST: big-endian header, one byte a value), gzip without name and time:

    digits-{images-idx3,labels-idx1}-ubyte.gz             all 1,797 images, in the order of the source
    fashion-{train,test}-{images-idx3,labels-idx1}-ubyte.gz
                                                          the first 200 images of each class of `train`, the first 50 of
                                                          each class of `t10k`, in the order of the source
and prints the sha256 of each uncompressed file.
"""

import csv
import gzip
import hashlib
import io
import pathlib
import struct
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


def write_idx(name, dims, values):
    count = 1
    for d in dims:
        count *= d
    assert len(values) == count, (name, dims, len(values))
    raw = struct.pack(">I", 0x0800 | len(dims)) + b"".join(struct.pack(">I", d) for d in dims) + bytes(values)
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as f:
        f.write(raw)
    (HERE / name).write_bytes(buffer.getvalue())
    print(f"{name:42} {len(buffer.getvalue()):8} bytes  sha256 {hashlib.sha256(raw).hexdigest()}")


def read_idx(path):
    raw = gzip.decompress(path.read_bytes())
    ndim = raw[3]
    dims = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
    return dims, raw[4 + 4 * ndim :]


def digits(wheel):
    with zipfile.ZipFile(wheel) as z:
        text = gzip.decompress(z.read("sklearn/datasets/data/digits.csv.gz")).decode()
    rows = [[int(float(v)) for v in row] for row in csv.reader(io.StringIO(text))]
    assert len(rows) == 1797 and all(len(r) == 65 and max(r[:64]) <= 16 and min(r[:64]) >= 0 for r in rows)
    write_idx("digits-images-idx3-ubyte.gz", (len(rows), 8, 8), [v for r in rows for v in r[:64]])
    write_idx("digits-labels-idx1-ubyte.gz", (len(rows),), [r[64] for r in rows])


def fashion(folder, source, target, per_class):
    (n, height, width), pixels = read_idx(folder / f"{source}-images-idx3-ubyte.gz")
    (labels_n,), labels = read_idx(folder / f"{source}-labels-idx1-ubyte.gz")
    assert n == labels_n
    seen = [0] * 10
    chosen = []
    for i, label in enumerate(labels):
        if seen[label] < per_class:
            seen[label] += 1
            chosen.append(i)
    assert seen == [per_class] * 10
    size = height * width
    write_idx(f"fashion-{target}-images-idx3-ubyte.gz", (len(chosen), height, width), b"".join(pixels[i * size : (i + 1) * size] for i in chosen))
    write_idx(f"fashion-{target}-labels-idx1-ubyte.gz", (len(chosen),), [labels[i] for i in chosen])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    digits(sys.argv[1])
    fashion(pathlib.Path(sys.argv[2]), "train", "train", 200)
    fashion(pathlib.Path(sys.argv[2]), "t10k", "test", 50)
