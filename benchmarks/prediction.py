"""Photo to mask: `carvana_unet` beside the recipe of 2017, re-stated, in one run.

    python benchmarks/prediction.py [--photos 8] [--output benchmarks/results/prediction.json]
    python benchmarks/prediction.py --confidence [--output benchmarks/results/confidence.json]

The photos are the studio's (of cars that the model has not seen), or with CARVANA_PATH the competition's: the last ten
cars of its valid_cars.txt. The recipe: a U-Net of 13,395,329 parameters in float32 on two squares at half scale, one after
the other; its probability as an 8-bit picture enlarged to full size; a hard cut in the middle; the dense CRF of the full
photo with the original's parameters (pydensecrf, where it is installed). Its weights are random, which changes its time
but little, so it has no dice. A third row has one: the recipe's own steps about the network of MODEL_small.pth, which is
made for half scale too, say what these steps make of good probabilities.

Each runs in a process of its own. Seconds a photo, from the JPEG file to the PNG mask, are what passes between one written
mask and the next, without the first two. The cold start is the whole life of a process with one photo. Memory is the
peak of what is resident, above what it was after the imports. `--confidence` asks how well the confidence of a photo foretells its
dice, with and without second looks (flips, squares), and what it says where the model was never meant to be used."""
import argparse, datetime, json, os, platform, resource, shlex, subprocess, sys, tempfile, time
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent


def data(folder, n):
    "`n` pairs of photo and mask, spread over cars and views"
    from carvana_unet.carvana import pairs
    from carvana_unet.studio import write_studio
    if root := os.environ.get('CARVANA_PATH'):
        cars = Path(root, 'valid_cars.txt').read_text().split()[10:]
        found = sorted((p for p in pairs(root) if p.car in cars), key=lambda p: (p.view * 7 % 16, p.car))
    else: found = pairs(write_studio(folder, seeds=range(10_000, 10_000 + -(-n // 4)), views=(2, 5, 9, 14)))
    return found[:n]


def peak():
    "GB resident at most, so far"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ours(photos, folder):
    "The pipeline of `carvana-predict`: read, predict and write at the same time"
    from carvana_unet.photos import write_mask
    from carvana_unet.prediction import Predictor, prefetched
    imported, predictor = peak(), Predictor(device='cpu')
    def write(item): return write_mask(item[1].mask, folder/f'{Path(item[0]).stem}.png')
    for _ in prefetched(write, predictor.stream(photos)): yield imported


def recipe(photos, folder):
    "The recipe of 2017, with weights that are random"
    from carvana_unet.checkpoints import Checkpoint
    from carvana_unet.unet import UNet
    net = UNet(width=64, depth=4)
    assert sum(p.numel() for p in net.parameters()) == 13_395_329
    yield from as_in_2017(Checkpoint(net.state_dict(), net.arch, mean=(0,) * 3, std=(1,) * 3), photos, folder)


def recipe_small(photos, folder):
    "The steps of 2017 about the network of MODEL_small.pth"
    from carvana_unet.checkpoints import find_model, load_checkpoint
    yield from as_in_2017(load_checkpoint(find_model('MODEL_small.pth')), photos, folder)


def as_in_2017(checkpoint, photos, folder):
    "Two squares one after the other, an 8-bit picture, a hard cut, a CRF"
    import numpy as np, torch
    from PIL import Image
    from carvana_unet.squares import merge, split
    try: import pydensecrf.densecrf  # noqa: F401, so that the memory it takes is not counted as the method's
    except ModuleNotFoundError: print('without the CRF: pydensecrf is not installed', file=sys.stderr)
    imported, net = peak(), checkpoint.net().eval()
    mean, std = (torch.tensor(v)[:, None, None] for v in (checkpoint.mean, checkpoint.std))
    for path in photos:
        photo, halves = np.array(Image.open(path)), []
        for square in split(photo):
            size = square.shape[0]
            small = np.array(Image.fromarray(np.ascontiguousarray(square)).resize((size // 2, size // 2)))
            with torch.no_grad(): prob = net(((torch.tensor(small).permute(2, 0, 1) / 255 - mean) / std)[None]).sigmoid()[0, 0].numpy()
            halves.append(np.array(Image.fromarray((prob * 255).astype(np.uint8)).resize((size, size)), np.float32) / 255)
        prob = merge(halves, photo.shape[:2], blend=False)
        if 'pydensecrf' in sys.modules: prob = crf(photo, prob)
        Image.fromarray(prob > 0.5).convert('L').save(folder/f'{Path(path).stem}.png')
        yield imported


def crf(photo, prob):
    "Dense CRF of the whole photo: 5 iterations, smoothness 20 px, appearance 30 px and 20 grey levels"
    import numpy as np
    from pydensecrf.densecrf import DenseCRF2D
    h, w = prob.shape
    d = DenseCRF2D(w, h, 2)
    p = prob.clip(1e-5, 1 - 1e-5)
    d.setUnaryEnergy(-np.log(np.stack([1 - p, p])).reshape(2, -1).astype(np.float32))
    d.addPairwiseGaussian(sxy=20, compat=3)
    d.addPairwiseBilateral(sxy=30, srgb=20, rgbim=np.ascontiguousarray(photo), compat=10)
    return np.array(d.inference(5))[1].reshape(h, w)


def worker(name, folder, photos):
    "Run a method, print when each mask was written and what memory it took"
    times, imported = zip(*[(time.perf_counter(), memory) for memory in dict(ours=ours, recipe=recipe, recipe_small=recipe_small)[name](photos, Path(folder))])
    print(json.dumps(dict(seconds=[b - a for a, b in zip(times, times[1:])], memory=peak() - imported[-1])))


def run(words):
    "What a program printed, and how long it took"
    start = time.perf_counter()
    r = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True)
    return r.stdout, time.perf_counter() - start


def measure(name, items, folder):
    "A row of the table"
    from carvana_unet.dice import mean_dice
    from carvana_unet.photos import read_mask
    photos, me = [p.photo for p in items], [sys.executable, __file__, '--worker', name, folder]
    one = [Path(sys.executable).with_name('carvana-predict'), '-i', photos[0], '-o', folder/'one.png', '--cpu'] if name == 'ours' else me + photos[:1]
    cold = median(run(one)[1] for _ in range(3 if name == 'ours' else 1))
    row = json.loads(run(me + photos)[0])
    seconds = row['seconds'][1:]
    low, _, high = quantiles(seconds, n=4)
    found = dict(method=name, seconds=median(seconds), quartiles=[low, high], cold=cold, memory=row['memory'])
    if name != 'recipe': found['dice'] = mean_dice([read_mask(folder/f'{p.stem}.png') for p in photos], [read_mask(p.mask) for p in items])
    return found


def plain_dice(items):
    "Mean dice of the same weights in plain float32, on photos decoded in full, the whole photo in one pass"
    import torch
    from carvana_unet.dice import mean_dice
    from carvana_unet.photos import read_mask, read_photo
    from carvana_unet.engines import TorchEngine
    from carvana_unet.prediction import Predictor
    p = Predictor(device='cpu', crf=False)
    p.engine = TorchEngine(p.checkpoint, 'cpu', torch.float32)
    return mean_dice([p.mask(read_photo(i.photo)) for i in items], [read_mask(i.mask) for i in items])


def speed(n):
    "The table of speed, memory and dice"
    with tempfile.TemporaryDirectory() as folder:
        items = data(Path(folder), n)
        rows = [measure(name, items, Path(folder)) for name in ('ours', 'recipe', 'recipe_small')]
        rows[0]['dice_plain_float32'] = plain_dice(items)
    print('| | seconds a photo (quartiles) | cold start, s | memory, GB | dice |\n|---|---|---|---|---|')
    for r in rows: print(f"| {r['method']} | {r['seconds']:.2f} ({r['quartiles'][0]:.2f} to {r['quartiles'][1]:.2f}) | {r['cold']:.1f} "
                         f"| {r['memory']:.2f} | {r['dice']:.5f} |" if 'dice' in r else
                         f"| {r['method']} | {r['seconds']:.2f} ({r['quartiles'][0]:.2f} to {r['quartiles'][1]:.2f}) | {r['cold']:.1f} | {r['memory']:.2f} | |")
    print(f"\n{rows[1]['seconds'] / rows[0]['seconds']:.0f} times faster; plain float32: dice {rows[0]['dice_plain_float32']:.5f}")
    return dict(photos=len(items), rows=rows)


def foretold(predictor, items):
    "How the confidence of photos goes with their dice"
    import numpy as np
    from scipy.stats import spearmanr
    from carvana_unet.dice import dice
    from carvana_unet.photos import read_mask
    rows = [(found.confidence, dice(found.mask, read_mask(pair.mask)))
            for pair, (_, found) in zip(items, predictor.stream([p.photo for p in items]))]
    confidence, dice = np.array(rows).T
    worst = set(np.argsort(dice)[:max(1, round(.05 * len(rows)))])
    least = set(np.argsort(confidence)[:max(1, round(.1 * len(rows)))])
    return dict(photos=len(rows), spearman=float(spearmanr(confidence, dice).statistic), worst=len(worst),
                worst_among_least_confident=len(worst & least), lowest=float(confidence.min()), median=float(np.median(confidence)))


def elsewhere(photo, mask):
    "The car where it never was in training, and no car; each with its true mask"
    import numpy as np
    from carvana_unet.cutouts import on_background
    h, w = mask.shape
    rows, columns = np.mgrid[:h, :w]
    tiles = np.uint8(90 + 60 * (rows // 90 % 2 ^ columns // 110 % 2))[..., None].repeat(3, 2)
    ramp = np.uint8(40 + 180 * columns / w)[..., None].repeat(3, 2)
    backs = dict(tiles=tiles, ramp=ramp, white=np.full_like(tiles, 255), brown=np.full_like(tiles, 0) + np.uint8([120, 80, 50]))
    yield from ((f'car before {name}', on_background(photo, mask, back), mask) for name, back in backs.items())
    yield from ((f'{name} without a car', back, np.zeros_like(mask)) for name, back in backs.items())
    empty = photo.copy()
    empty[mask] = np.median(photo[~mask], axis=0)
    yield 'studio, the car painted over', empty, np.zeros_like(mask)


def outside(predictor, items):
    "Trust and dice of some photos where the model was never meant to be used, by case"
    from carvana_unet.dice import dice
    from carvana_unet.photos import read_mask, read_photo
    cases = {}
    for pair in items[::max(1, len(items) // 4)][:4]:
        for case, seen, true in elsewhere(read_photo(pair.photo), read_mask(pair.mask)):
            found = predictor.predict(seen)
            cases.setdefault(case, []).append(dict(confidence=found.confidence, dice=float(dice(found.mask, true))))
    return cases


def confidence(n):
    "The table of confidence"
    from carvana_unet.prediction import Predictor
    with tempfile.TemporaryDirectory() as folder:
        items = data(Path(folder), n)
        result = {}
        for name, options in dict(plain={}, tta_and_squares=dict(tta=True, squares=True)).items():
            predictor = Predictor(device='cpu', **options)
            result[name] = foretold(predictor, items)
            print(name, json.dumps(result[name]), flush=True)
            result[name]['elsewhere'] = outside(predictor, items)
            print(f'\n| elsewhere | confidence ({predictor.checkpoint.low_confidence} is low) | dice |\n|---|---|---|')
            for case, found in result[name]['elsewhere'].items():
                print(f'| {case} |', ' | '.join(f'{min(x[k] for x in found):.3f} to {max(x[k] for x in found):.3f}' for k in ('confidence', 'dice')), '|', flush=True)
    return result


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--photos', type=int, default=8)
    p.add_argument('--confidence', action='store_true')
    p.add_argument('-o', '--output', type=Path, help='write all numbers as JSON here')
    p.add_argument('--worker', nargs='+', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.worker: return worker(*args.worker[:2], args.worker[2:])
    found = confidence(args.photos) if args.confidence else speed(args.photos)
    try: model = next(line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name'))
    except (OSError, StopIteration): model = platform.processor()
    about = dict(date=datetime.date.today().isoformat(), machine=f'{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}',
                 data='Carvana' if 'CARVANA_PATH' in os.environ else 'studio', command='python ' + shlex.join([f'benchmarks/{Path(__file__).name}', *sys.argv[1:]]))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(about | found, indent=1) + '\n')


if __name__ == '__main__': main()
