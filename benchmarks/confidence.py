"""Fit and test the confidence of predictions: how well it tells good masks from bad ones, in the studio and outside it.

    CARVANA_PATH=carvana OUTSIDE_PATH=outside python benchmarks/confidence.py --output benchmarks/results/confidence.json

Both folders have Kaggle's layout and a `valid_cars.txt`; no model of this project was trained on these cars. Four kinds of
photo: the studio's, the outside photos, outside photos that are spoilt (dark and noisy, blurred, a few pixels wide, a part
only, upright, hard JPEG), and studio cars pasted onto OUTSIDE_PATH/backgrounds, a third of them spoilt likewise; and
backgrounds without a car, whose Dice is 0 wherever a car is found. The fit sees the first ten studio cars and every other
outside photo and background; the test sees the last ten cars and the others. The confidence is the Dice to be expected:
1 - exp(a + b log(e + 1e-4) + c log(p + 1e-3)), where e and p are `expected_error` and `detached` of `carvana_unet.prediction`
and a, b, c minimise the squared error of log(1 - Dice) over all models together. Each model's limit is the confidence below
which 93 % of the fit's masks with a Dice under 0.9 lie. It all takes half an hour on two cores."""
import argparse, datetime, io, json, os, random, sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter


def spoilt(photo, mask, kind, rng):
    "A photo and its mask as a bad camera or a careless hand would leave them"
    image, (h, w) = Image.fromarray(photo), mask.shape
    if kind == 'dark':
        noisy = photo * rng.uniform(.08, .35) + rng.normal(0, rng.uniform(2, 14), photo.shape)
        return noisy.clip(0, 255).astype(np.uint8), mask
    if kind == 'tiny':
        size = [max(24, int(side * rng.uniform(.15, .45))) for side in (w, h)]
        return np.array(image.resize(size)), np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    if kind == 'part':
        (top, left), (rows, columns) = rng.uniform(0, .4, 2) * (h, w), rng.uniform(.35, .6, 2) * (h, w)
        box = np.s_[int(top):int(top + rows), int(left):int(left + columns)]
        return np.ascontiguousarray(photo[box]), mask[box]
    if kind == 'blurred': return np.array(image.filter(ImageFilter.GaussianBlur(rng.uniform(2, 9)))), mask
    if kind == 'upright': return np.rot90(photo).copy(), np.rot90(mask)
    packed = io.BytesIO()
    image.save(packed, 'JPEG', quality=int(rng.integers(3, 12)))
    return np.array(Image.open(packed)), mask


KINDS = ['dark', 'tiny', 'part', 'blurred', 'upright', 'jpeg']


def composites(photos, backgrounds, n, seed):
    "Cars on backgrounds, some small and compressed, some spoilt"
    import torch
    from carvana_unet.batches import cut_car, degraded, scenes_for
    random.seed(seed); torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    stacked = [torch.from_numpy(x).permute(2, 0, 1) for x in photos]
    others = [(x[:3], x[3]) for x in stacked]
    for i in range(n):
        scenes = scenes_for(backgrounds[0].parent, random.choice((480, 960)), others)
        scenes.backgrounds = backgrounds
        scene = scenes.composite(cut_car(random.choice(stacked)))
        rgb = degraded(scene[:3].contiguous()) if i % 2 else scene[:3]
        photo, mask = rgb.permute(1, 2, 0).numpy().copy(), scene[3].numpy() > 127
        yield spoilt(photo, mask, KINDS[i // 3 % 6], rng) if i % 3 == 0 else (photo, mask)


def photo_sets(studio, outside, test):
    "Kind, photo and mask of every photo to fit on, or to test on"
    from carvana_unet.carvana import pairs, read_cars
    from carvana_unet.photos import read_mask, read_photo
    cars = read_cars(Path(studio, 'valid_cars.txt'))
    cars = set(cars[-10:] if test else cars[:10])
    items = [pair for pair in pairs(studio) if pair.car in cars]
    for pair in items[test::8]: yield 'studio', read_photo(pair.photo), read_mask(pair.mask)
    street, rng = set(read_cars(Path(outside, 'valid_cars.txt'))), np.random.default_rng(test)
    for pair in [pair for pair in pairs(outside) if pair.car in street][test::2]:
        photo, mask = read_photo(pair.photo), read_mask(pair.mask)
        yield 'outside', photo, mask
        for kind in KINDS: yield 'outside, spoilt', *spoilt(photo, mask, kind, rng)
    backgrounds = sorted(Path(outside, 'backgrounds').glob('*.jpg'))[test::2]
    stacked = [np.dstack([read_photo(pair.photo), read_mask(pair.mask) * np.uint8(255)]) for pair in items[3::7]]
    for photo, mask in composites(stacked, backgrounds, 160, test): yield 'composite', photo, mask
    for file in backgrounds[::20]:
        photo = read_photo(file)
        yield 'no car', photo, np.zeros(photo.shape[:2], bool)


def measure(predictors, items):
    "A row of kind, and of Dice, expected error and detached share for each model, for every photo with a mask"
    from carvana_unet.dice import dice
    from carvana_unet.prediction import car_probability, detached, expected_error
    rows = []
    for kind, photo, true in items:
        if kind != 'no car' and true.mean() < .002: continue
        row = []
        for predictor in predictors:
            found = predictor.predict(photo)
            prob = car_probability(found.small)
            row.append((dice(found.mask, true), expected_error(prob, found.threshold), detached(prob > found.threshold)))
        rows.append((kind, row))
        if len(rows) % 20 == 0: print(len(rows), kind, file=sys.stderr)
    return np.array([kind for kind, _ in rows]), np.array([row for _, row in rows])


def features(figures):
    "Columns for the fit: 1, log of the expected error, log of the detached share"
    return np.stack([np.ones(len(figures)), np.log(figures[:, 1] + 1e-4), np.log(figures[:, 2] + 1e-3)], 1)


def fitted(figures):
    "The three coefficients, over all models together"
    figures = figures.reshape(-1, 3)
    figures = figures[figures[:, 1] < 1]  # a car was found
    return np.linalg.lstsq(features(figures), np.log((1 - figures[:, 0]).clip(1e-3)), rcond=None)[0]


def shares(kinds, figures, coefficients, limit):
    "Photos, mean Dice and share of flagged masks by kind, and by Dice for all that are not the studio's"
    confidence = 1 - np.exp(features(figures) @ coefficients)
    flagged, score = (confidence < limit) | (figures[:, 1] >= 1), figures[:, 0]
    row = lambda some: dict(photos=int(some.sum()), dice=round(float(score[some].mean()), 4), flagged=round(float(flagged[some].mean()), 3))
    away = kinds != 'studio'
    return {kind: row(kinds == kind) for kind in dict.fromkeys(kinds.tolist())} | {
        'outside the studio, Dice below 0.9': row(away & (score < .9)), 'outside the studio, Dice above 0.97': row(away & (score > .97) & (figures[:, 1] < 1))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--models', nargs='+', default=['MODEL.pth', 'MODEL_small.pth'], help='checkpoints to fit together')
    parser.add_argument('--keep', action='store_true', help='fit only limits, with the coefficients of this version; other models stay in the file')
    parser.add_argument('--output', help='JSON file for the result')
    args = parser.parse_args()
    folders = [os.environ.get(v) or sys.exit(f'{v} is not set; name a folder of photos and masks in it') for v in ('CARVANA_PATH', 'OUTSIDE_PATH')]
    from carvana_unet.prediction import CONFIDENCE, Predictor
    predictors = [Predictor(model, crf=False) for model in args.models]
    (kinds, fit), (test_kinds, test) = (measure(predictors, photo_sets(*folders, part)) for part in (False, True))
    coefficients = list(CONFIDENCE) if args.keep else fitted(fit).round(2).tolist()
    before = json.loads(Path(args.output).read_text())['models'] if args.keep and args.output else {}
    result = dict(date=str(datetime.date.today()), coefficients=coefficients, models=before)
    for i, model in enumerate(args.models):
        bad = fit[fit[:, i, 0] < .9, i]
        bad = bad[bad[:, 1] < 1]
        limit = round(float(np.quantile(1 - np.exp(features(bad) @ result['coefficients']), .93)), 3)
        result['models'][Path(model).name] = dict(limit=limit, fit=shares(kinds, fit[:, i], result['coefficients'], limit),
                                       test=shares(test_kinds, test[:, i], result['coefficients'], limit))
    print(json.dumps(result, indent=1))
    if args.output: Path(args.output).write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__': main()
