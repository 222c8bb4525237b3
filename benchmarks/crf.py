"""The dense CRF, side by side in one run: none, the one of 2017 (full frame, pydensecrf as it was called), this project's.

    python benchmarks/crf.py                            synthetic studio photos
    CARVANA_PATH=... python benchmarks/crf.py           real ones: fitted on the first half of valid_cars.txt, reported on the second
    python benchmarks/crf.py -m MODEL.pth QUARTER.pth@0.25 --views 4 -o benchmarks/results/crf.json

Prints dice, seconds and memory; with -o writes every photo's numbers, which the notebook 09_crf plots.
"""
import argparse, hashlib, json, os, shlex, sys, tempfile, time
from dataclasses import asdict
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from carvana_unet.carvana import pairs, read_cars
from carvana_unet.checkpoints import find_model
from carvana_unet.crf import fit_crf, refine
from carvana_unet.dice import dice
from carvana_unet.prediction import Predictor
from carvana_unet.scoring import Cases
from carvana_unet.studio import write_studio


def full_frame(photo, prob, _):
    "The recipe of 2017, on the library alone: every pixel takes part (the clipping keeps the logarithm finite)"
    from pydensecrf.densecrf import DenseCRF2D
    h, w = prob.shape
    p = prob.clip(1e-5, 1 - 1e-5)
    crf = DenseCRF2D(w, h, 2)
    crf.setUnaryEnergy(-np.log(np.stack([1 - p, p])).reshape(2, -1))
    crf.addPairwiseGaussian(sxy=20, compat=3)
    crf.addPairwiseBilateral(sxy=30, srgb=20, rgbim=np.ascontiguousarray(photo), compat=10)
    return np.array(crf.inference(5))[1].reshape(h, w)


def spread(items, cars, views):
    "`views` photos of each car, evenly around it, car after car from another side"
    chosen = {(car, (3 * i + 16 // views * j) % 16 + 1) for i, car in enumerate(cars) for j in range(views)}
    return [p for p in items if (p.car, p.view) in chosen]


def photos(args, folder):
    "Pairs to fit on and pairs to report on, of different cars, and what they are"
    data = os.environ.get('CARVANA_PATH')
    if data:
        cars = read_cars(Path(data)/'valid_cars.txt')
        choose, quote = cars[:len(cars) // 2], cars[len(cars) // 2:]
        both = spread(pairs(data), choose, args.fit_views), spread(pairs(data), quote, args.views)
        return *both, f'real photos, {len(cars)} cars kept aside'
    sides = []
    for part, first in enumerate((10_000, 10_500)):
        for seed in tqdm(range(first, first + args.cars), desc='drawing studio photos', unit='car'):
            write_studio(folder/f'{part}', [seed], [1 + 5 * (seed % 16) % 16])
        sides.append(pairs(folder/f'{part}'))
    return *sides, 'synthetic studio photos'


def timed(method, *args):
    "What `method` returns, and the processor seconds it took: nothing here uses threads, and a busy machine changes them little"
    start = time.process_time()
    result = method(*args)
    return result, time.process_time() - start


def resident(key):
    "Bytes of memory that this process has ('VmRSS') or had at its highest ('VmHWM')"
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def peak(method, photo, prob, params):
    "Bytes that a process of its own grows by at its highest (Linux)"
    method(photo[:64, :64], np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64), params)  # imports are not counted
    Path('/proc/self/clear_refs').write_text('5')  # forgets what the highest was until now
    before = resident('VmRSS')
    method(photo, prob, params)
    return resident('VmHWM') - before


def network(name, fit_on, report_on, folder):
    "Fit, then dice and seconds of every photo, for one network; `name` is FILE or FILE@SCALE"
    file, at, scale = name.partition('@')
    predictor = Predictor(file, device='cpu', scale=float(scale) if scale else None)
    folder = folder/f'{hashlib.sha256(find_model(file).read_bytes()).hexdigest()[:12]}{at}{scale}'
    folder.mkdir(parents=True, exist_ok=True)
    fit = fit_crf(Cases(predictor, fit_on, folder), threshold=predictor.threshold, progress=True)
    rows, seconds, cases = [], dict(original=[], gated=[]), Cases(predictor, report_on, folder)
    for pair, (photo, prob, true) in zip(report_on, tqdm(cases, desc=name, unit='photo')):
        row = dict(name=pair.name, without=dice(prob > predictor.threshold, true))
        for kind, method, params in [('original', full_frame, None), ('gated', refine, fit.crf)]:
            after, took = timed(method, photo, prob, params)
            seconds[kind].append(took)
            row[kind] = dice(after > predictor.threshold, true)
        rows.append(row)
    with get_context('spawn').Pool(1, maxtasksperchild=1) as pool:  # a fresh process each
        memory = {kind: pool.apply(peak, (method, photo, prob, params))
                  for kind, method, params in [('original', full_frame, None), ('gated', refine, fit.crf)]}
    return dict(network=f'{Path(file).name}{at}{scale}', scale=predictor.scale, threshold=predictor.threshold, crf=asdict(fit.crf), pays=fit.pays, fit_gain=fit.gain,
                fit_photos=len(fit.dice), tried=len(fit.tried), seconds=seconds, peak_bytes=memory, photos=rows)


def report(found):
    "The table, as markdown"
    lines = ['| network | CRF | dice | gain | s.e. | better, of | worst | s a photo (10 to 90 %) | memory, GB |', '|---|---|---|---|---|---|---|---|---|']
    for net in found['networks']:
        value = lambda key, photos=net['photos']: np.array([row[key] for row in photos])
        without = value('without')
        lines.append(f"| {net['network']} | none | {without.mean():.5f} | | | | | | |")
        for kind, title in [('original', '2017, full frame'), ('gated', 'fitted, gated')]:
            gain, s = value(kind) - without, net['seconds'][kind]
            low, high = np.quantile(s, (.1, .9))
            lines.append(f"| {net['network']} | {title} | {value(kind).mean():.5f} | {gain.mean():+.5f} | {gain.std() / len(gain) ** .5:.5f} | "
                         f"{(gain > 0).sum()}, {len(gain)} | {gain.min():+.5f} | {np.median(s):.2f} ({low:.2f} to {high:.2f}) | {net['peak_bytes'][kind] / 1e9:.2f} |")
    return '\n'.join(lines)


def save(found, path):
    "Write the numbers, whole or not at all"
    part = path.with_name(f'.{path.name}.part')
    part.write_text(json.dumps(found, indent=1) + '\n')
    os.replace(part, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-m', '--model', nargs='+', default=['MODEL.pth', 'MODEL.pth@0.25'], metavar='FILE[@SCALE]',
                        help='networks, each at its own scale or the one given (default: the shipped model, and the same at quarter scale)')
    parser.add_argument('--views', type=int, default=4, choices=(1, 2, 4, 8, 16), help='real photos of each car to report on (default 4)')
    parser.add_argument('--fit-views', type=int, default=2, choices=(1, 2, 4, 8, 16), help='real photos of each car to fit on (default 2)')
    parser.add_argument('--cars', type=int, default=6, help='studio cars to fit on, and as many to report on (default 6)')
    parser.add_argument('--cache', type=Path, help='keep what the networks answer in this folder, for the next run')
    parser.add_argument('--machine', default=f'{os.cpu_count()} cores', help='what it runs on, for the record')
    parser.add_argument('-o', '--output', type=Path, help='write all numbers as JSON here')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        fit_on, report_on, what = photos(args, Path(tmp))
        print(f'{what}: fitted on {len(fit_on)}, reported on {len(report_on)}', flush=True)
        found = dict(date=f'{date.today()}', machine=args.machine, data=what, command='python benchmarks/crf.py ' + shlex.join(
            Path(a).name if os.path.isabs(a) else a for a in sys.argv[1:]), networks=[])
        for name in args.model:
            found['networks'].append(network(name, fit_on, report_on, args.cache or Path(tmp)))
            if args.output: save(found, args.output)
    print(report(found))
    for net in found['networks']: print(f"{net['network']}: refinement {'pays' if net['pays'] else 'does not pay'}: {net['crf']}")


if __name__ == '__main__': main()
