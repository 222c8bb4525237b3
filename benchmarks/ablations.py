"""What each lever of training is worth: one change at a time, at equal budget, beside the noise between seeds.

    CARVANA_PATH=carvana python benchmarks/ablations.py         # all that is not in results/ablations.json yet

Every run trains the same number of steps on the same photos (a random part of the training cars) and is scored at full
size on the photos of the choosing cars. The base runs with several seeds; an effect inside the 95 % band of one new run
against their mean is noise. What is changed when predicting (flips, squares) is measured on the base's own models. Beside the
dice stands that of the same cars in front of two photos of scikit-learn's (a temple, a flower): far from any studio.
"""
import argparse
import json
import os
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

HERE = Path(__file__).parent
BASE = dict(arch='efficientnet_lite0', scale=0.25, crop=0, batch_size=8)
VARIANTS = {
    'base, seed 1': {}, 'base, seed 2': dict(seed=2), 'base, seed 3': dict(seed=3),
    'twice the epochs': dict(epochs=2),     # times the base's
    'no flips': dict(augment=('light',)),
    'no brightness and contrast': dict(augment=('flip',)),
    'hue and saturation': dict(augment=('flip', 'light', 'hue')),
    'rotation and zoom': dict(augment=('flip', 'light', 'zoom')),
    'replaced backgrounds': dict(augment=('flip', 'light', 'background')),
    'boundary weight 3': dict(boundary=3.),
    'transposed convolutions': dict(bilinear=False),
    'width 24': dict(width=24),
    'encoder from scratch': dict(pretrained=False),
    'plain U-Net, width 16, depth 5': dict(arch='unet', lr=3e-3),
    'scale 0.5, crops of 320': dict(scale=0.5, crop=320),
    'scale 1, crops of 320': dict(scale=1., crop=320),
    'scale 0.5 by squares of 2x2 pixels': dict(scale=0.5, subpixel=2),
    'steps of 16 squares': dict(accumulate=2),
    'no average of the weights': dict(decay=0.),
}


def outside(pairs: list, folder: Path) -> list:
    "The same cars in front of other photos: pairs whose JPEGs are written into the folder"
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images
    from carvana_unet.photos import read_mask, read_photo
    scenes = [Image.fromarray(scene) for scene in load_sample_images().images]
    for i, pair in enumerate(pairs):
        photo, mask = read_photo(pair.photo), read_mask(pair.mask)
        scene = np.asarray(scenes[i % len(scenes)].resize(photo.shape[1::-1]))
        Image.fromarray(np.where(mask[..., None], photo, scene)).save(folder/pair.photo.name, quality=95)
    return [pair._replace(photo=folder/pair.photo.name) for pair in pairs]


def run(data: Path, change: dict, photos: int, epochs: int, check: int) -> tuple[dict, object]:
    "Train one variant: what is known of it, and its checkpoint"
    from carvana_unet import long_runs
    from carvana_unet.prediction import Predictor, evaluate
    part, average = long_runs.split_for_training, long_runs.WeightAverage

    def fewer(folders, valid, *args):
        train, choosing = part(folders, valid, check)
        return random.Random(0).sample(train, photos), choosing

    change = dict(change)
    epochs, lr, seed = epochs * change.pop('epochs', 1), change.pop('lr', 2e-3), change.pop('seed', 1)
    long_runs.split_for_training, long_runs.WeightAverage = fewer, partial(average, change.pop('decay', .998))
    try:
        with tempfile.TemporaryDirectory() as folder:
            start = time.time()
            ck = long_runs.train([data], Path(folder)/'model.pth', epochs, lr, seed=seed, **{**BASE, **change})
            minutes = round((time.time() - start) / 60, 2)
            elsewhere = evaluate(Predictor(ck), outside(part([data], None, check)[1], Path(folder)))
            return dict(dice=ck.score['dice'], outside=fmean(r['dice'] for r in elsewhere), minutes=minutes), ck
    finally: long_runs.split_for_training, long_runs.WeightAverage = part, average


def predicting(ck, data: Path, check: int) -> dict:
    "Mean dice of one model, predicting in several ways"
    from carvana_unet.prediction import Predictor, evaluate
    from carvana_unet.long_runs import split_for_training
    _, choosing = split_for_training([data], None, check)
    ways = {'whole photos': {}, 'squares': dict(squares=True), 'flipped as well': dict(tta=True)}
    return {name: fmean(r['dice'] for r in evaluate(Predictor(ck, **way), choosing)) for name, way in ways.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--photos', type=int, default=250, help='to learn from (default: %(default)s)')
    p.add_argument('--epochs', type=int, default=3, help='of the base (default: %(default)s)')
    p.add_argument('--check', type=int, default=80, help='photos of the choosing cars (default: %(default)s)')
    p.add_argument('--data', type=Path, default=os.environ.get('CARVANA_PATH'), help="folder in Kaggle's layout with valid_cars.txt")
    p.add_argument('--results', type=Path, default=HERE/'results'/'ablations.json', help='(default: %(default)s)')
    args = p.parse_args()
    if not args.data: sys.exit('no data: give --data, or set CARVANA_PATH')
    budget = dict(photos=args.photos, epochs=args.epochs, check=args.check)
    results = json.loads(args.results.read_text()) if args.results.exists() else dict(budget=budget, base={k: str(v) for k, v in BASE.items()}, rows={})
    if results['budget'] != budget: sys.exit(f"{args.results}: has another budget ({results['budget']}); give the same, or another --results")
    for name, change in VARIANTS.items():
        if name in results['rows']: continue
        row, ck = run(Path(args.data), change, **budget)
        if not change: results['predicting'] = predicting(ck, Path(args.data), args.check)
        results['rows'][name] = dict(row, date=time.strftime('%Y-%m-%d'))
        args.results.parent.mkdir(exist_ok=True)
        args.results.write_text(json.dumps(results, indent=1) + '\n')
        print(name, row, flush=True)
    from scipy.stats import t
    base = [row['dice'] for name, row in results['rows'].items() if name.startswith('base')]
    noise = t.ppf(.975, len(base) - 1) * stdev(base) * (1 + 1 / len(base))**.5
    print(f'\nbase {fmean(base):.5f}, noise {noise:.5f}\n\n| change | dice | effect | outside | minutes |\n|---|---|---|---|---|')
    for name, row in results['rows'].items():
        effect = row['dice'] - fmean(base)
        print(f"| {name} | {row['dice']:.5f} | {effect:+.5f}{' (noise)' if abs(effect) < noise else ''} | {row['outside']:.3f} | {row['minutes']} |")


if __name__ == '__main__': main()
