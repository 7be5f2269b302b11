"""Answers the samples of a CSV file (or several .npy files at once) with a frozen network, as CSV on standard output.

python examples/serve.py net.safetensors < samples.csv
python examples/serve.py net.safetensors a.npy b.npy
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastnn

frozen = fastnn.load_frozen(sys.argv[1])

if sys.argv[2:]:
    with ThreadPoolExecutor(8) as pool:  # the threads share the network
        for y in pool.map(lambda name: frozen(np.load(name)), sys.argv[2:]):
            np.savetxt(sys.stdout, y, "%.7g", ",")
else:
    for line in sys.stdin:
        x = np.array(line.split(","), np.float32)
        print(*frozen(x[None])[0], sep=",", flush=True)
