"""Image towers of `fisao bench` by onnxruntime: one case in this process, one line of JSON as `fisao bench --here` prints it.

    pip install torch transformers onnx onnxscript onnxruntime
    python works.py encode-vit-b-32-224-f32 [--seconds 3] [--threads 2] [--models FOLDER]

The tower is transformers' class with drawn weights, exported by `../pytorch/works.py --export` in a process of its own, so
that peak memory is onnxruntime's. Exported files stay in the folder of models.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnxruntime

PYTORCH = pathlib.Path(__file__).resolve().parent.parent / "pytorch"
sys.path.insert(0, str(PYTORCH))
from timing import repeat, report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "fisao-onnx")
    arguments = parser.parse_args()
    if not (arguments.case.startswith("encode-") and arguments.case.endswith("-f32")) or "qformer" in arguments.case:
        sys.exit(f"{arguments.case} is not an image tower in f32")
    file = arguments.models / f"{arguments.case}.onnx"
    if not file.exists():
        arguments.models.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, PYTORCH / "works.py", arguments.case, "--export", file], check=True, stdout=subprocess.DEVNULL)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    [pixels] = session.get_inputs()
    image = numpy.ones(pixels.shape, numpy.float32)
    times = repeat(lambda: session.run(None, {pixels.name: image}), arguments.seconds)
    report(arguments.case, "images", pixels.shape[0], times, onnxruntime=onnxruntime.__version__)


if __name__ == "__main__":
    main()
