"""What 8-bit weights and activations would cost and save in the exported network.

    pip install onnx
    python benchmarks/int8.py CARVANA [--every 2] [-o benchmarks/results/int8.json]

ONNX Runtime quantises the convolutions of MODEL.onnx, statically, calibrated on studio photos, one scale a channel. Scored
on the first ten cars of valid_cars.txt, file by file beside the file that ships; the files take turns at each photo."""
import argparse, json, os, platform, shlex, sys, tempfile, time
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from tqdm import tqdm

import carvana_unet
from carvana_unet.carvana import pairs, read_cars
from carvana_unet.dice import dice
from carvana_unet.photos import read_mask, read_photo
from carvana_unet.studio import studio_photo

SCALE = np.array(1, np.float32)
CALIBRATION = [(1, 3), (2, 7), (3, 11), (4, 15), (5, 1), (6, 9)]  # seeds and views of studio cars
KEPT = {'int8': (0, 0), 'int8, first 3 and last 8 convolutions in float': (3, 8)}


class Photos(CalibrationDataReader):
    def __init__(self): self.left = iter(CALIBRATION)
    def get_next(self): return next(({'photo': studio_photo(*which)[0], 'scale': SCALE} for which in self.left), None)


def session(path, **options):
    "An ONNX Runtime session that keeps its warnings for itself"
    o = ort.SessionOptions()
    o.log_severity_level = 3
    for k, v in options.items(): setattr(o, k, v)
    return ort.InferenceSession(path, o, providers=['CPUExecutionProvider'])


def quantised(model, folder):
    "Paths of the quantised files, by name"
    session(model, graph_optimization_level=ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, optimized_model_filepath=f'{folder}/float.onnx')
    graph = onnx.load(f'{folder}/float.onnx')
    for i, node in enumerate(graph.graph.node): node.name = node.name or f'node{i}'
    onnx.save(graph, f'{folder}/float.onnx')
    convs = [n.name for n in graph.graph.node if n.op_type == 'Conv']
    for i, (name, (first, last)) in enumerate(KEPT.items()):
        quantize_static(f'{folder}/float.onnx', f'{folder}/{i}.onnx', Photos(), quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=['Conv'],
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=convs[:first] + convs[len(convs) - last:])
        yield name, f'{folder}/{i}.onnx'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, help='folder of Carvana photos with valid_cars.txt')
    p.add_argument('--every', type=int, default=2, help='score one photo in so many')
    p.add_argument('-o', '--output', type=Path, help='write the numbers as JSON here')
    args = p.parse_args()
    cars, model = read_cars(args.data/'valid_cars.txt')[:10], str(Path(carvana_unet.__file__).parent/'MODEL.onnx')
    items = [pair for pair in pairs(args.data) if pair.car in cars][::args.every]
    with tempfile.TemporaryDirectory() as folder:
        files = {'MODEL.onnx': model, **dict(quantised(model, folder))}
        sessions = {name: session(path) for name, path in files.items()}
        rows = {name: dict(bytes=os.path.getsize(path), dice=[], seconds=[]) for name, path in files.items()}
        for pair in tqdm(items):
            photo, true = read_photo(pair.photo), read_mask(pair.mask)
            for name, run in sessions.items():
                start = time.perf_counter()
                probability = run.run(None, {'photo': photo, 'scale': SCALE})[0]
                rows[name]['seconds'].append(time.perf_counter() - start)
                rows[name]['dice'].append(dice(probability > .5, true))
    base = rows['MODEL.onnx']
    for row in rows.values():
        row['loss'] = float(np.mean(base['dice']) - np.mean(row['dice']))
        row['time'] = float(np.median(np.divide(row['seconds'], base['seconds'])))
    for row in rows.values(): row['dice'], row['seconds'] = float(np.mean(row['dice'])), float(np.median(row['seconds']))
    for name, r in rows.items(): print(f"{name:50} {r['bytes'] / 2**20:5.1f} MiB  Dice {r['dice']:.5f}, {r['loss']:.5f} less  {r['time']:.2f} of the time")
    found = dict(date=str(date.today()), command=shlex.join(['python', *sys.argv]), machine=f'{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}',
                 data=f'{len(items)} photos of the first ten cars of valid_cars.txt', rows=rows)
    if args.output: args.output.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__': main()
