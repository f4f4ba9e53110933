"""Image towers of `fisao bench` by onnxruntime: one case in this process, one line of JSON as `fisao bench --here` prints it.

    pip install torch transformers onnx onnxscript onnxruntime
    python works.py encode-vit-b-32-224-f32 [--seconds 3] [--threads 2] [--models FOLDER]

The tower is transformers' class with drawn weights, exported by `../pytorch/works.py --export` in a process of its own, so
that peak memory is onnxruntime's. Exported files stay in the folder of models.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy
import onnxruntime

FEWEST = 3
PYTORCH = pathlib.Path(__file__).resolve().parent.parent / "pytorch/works.py"


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
        subprocess.run([sys.executable, PYTORCH, arguments.case, "--export", file], check=True, stdout=subprocess.DEVNULL)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    [pixels] = session.get_inputs()
    image = numpy.ones(pixels.shape, numpy.float32)
    times = []
    while len(times) < FEWEST + 1 or sum(times[1:]) < arguments.seconds:
        begun = time.perf_counter()
        session.run(None, {pixels.name: image})
        times.append(time.perf_counter() - begun)
    times = sorted(times[1:])
    median, count = times[len(times) // 2], pixels.shape[0]
    print(json.dumps({
        "case": arguments.case, "unit": "images", "count": count, "repetitions": len(times), "seconds": median,
        "shortest": times[0], "longest": times[-1], "rate": count / median,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "onnxruntime": onnxruntime.__version__,
    }))


if __name__ == "__main__":
    main()
