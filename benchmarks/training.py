"""This project's training beside the recipe of 2017, on the same photos with the same network, one after the other.

    python benchmarks/training.py                           # studio photos
    CARVANA_PATH=carvana python benchmarks/training.py      # real ones; the quoted validation cars give the dice

The recipe of 2017, restated: float32 in the usual memory layout, SGD at a rate of 0.1 without a schedule, cross entropy,
batches of 10 squares; one process reads, shrinks and cuts every photo anew in every epoch. Ours runs first, for whole
epochs; the other one then gets the same wall time, whatever of it goes into reading. Photos a second count what was
learnt from, two squares to a photo. Each runs in a process of its own, so that its peak memory is its own.
"""
import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def photos_of(data: Path, n: int) -> tuple[list, list]:
    "`n` pairs to learn from, and pairs of the last half of the validation cars"
    from carvana_unet.carvana import pairs, read_cars, split_cars
    valid = data/'valid_cars.txt'
    train, held = split_cars(pairs(data), valid)
    quoted = read_cars(valid)[len(read_cars(valid)) // 2:]
    return random.Random(0).sample(train, min(n, len(train))), [p for p in held if p.car in quoted and p.view % 4 == 1]


def ours(data: Path, args) -> tuple[object, float, float]:
    "Our learner for whole epochs: checkpoint, photos learnt from, seconds"
    from carvana_unet.long_runs import prepare
    from carvana_unet import long_runs
    train, _ = photos_of(data, args.photos)
    split = long_runs.split_for_training
    long_runs.split_for_training = lambda *a, **k: (train, split(*a, **k)[1][:2])
    start = time.perf_counter()
    learn, ck = prepare([data], batch_size=8, arch='unet', width=args.width, depth=4, crop=0, seed=1)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(args.epochs, 3e-3)
    seconds = time.perf_counter() - start
    ck.weights = learn.model.state_dict()
    return ck, len(learn.dls.train) * 8 * args.epochs / 2, seconds


def recipe_of_2017(data: Path, args) -> tuple[object, float, float]:
    "The same network as it was trained in 2017, for `args.seconds`"
    import numpy as np
    import torch
    from PIL import Image
    from carvana_unet.checkpoints import Checkpoint
    from carvana_unet.squares import split
    from carvana_unet.unet import UNet
    train, _ = photos_of(data, args.photos)
    torch.manual_seed(1)
    net = UNet(width=args.width, depth=4).train()
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    start, squares, learnt = time.perf_counter(), [], 0
    while True:
        for pair in random.Random(learnt).sample(train, len(train)):
            photo, mask = Image.open(pair.photo).convert('RGB'), Image.open(pair.mask).convert('L')
            half = photo.width // 2, photo.height // 2
            x = np.float32(photo.resize(half)) / 255
            y = np.float32(np.array(mask.resize(half)) > 0)
            squares += [(a.transpose(2, 0, 1), b) for a, b in zip(split(x), split(y))]
            if len(squares) < 10: continue
            x, y = (torch.from_numpy(np.stack(part)) for part in zip(*squares))
            opt.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y).backward()
            opt.step()
            learnt, squares = learnt + len(squares) / 2, []
            seconds = time.perf_counter() - start
            if seconds > args.seconds: return Checkpoint(net.state_dict(), net.arch, mean=(0,) * 3, std=(1,) * 3), learnt, seconds


def measured(name: str, data: Path, args) -> dict:
    "Run one of the two here, and score what it learnt"
    from carvana_unet.prediction import Predictor, evaluate
    ck, photos, seconds = dict(ours=ours, recipe_of_2017=recipe_of_2017)[name](data, args)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rows = evaluate(Predictor(ck), photos_of(data, args.photos)[1])
    return dict(name=name, photos_a_second=photos / seconds, seconds=seconds, peak_memory_GB=memory,
                dice=sum(r['dice'] for r in rows) / len(rows), scored=len(rows))


def in_own_process(name: str, data: Path, args, seconds: float = 0) -> dict:
    "The same in a fresh process"
    words = [sys.executable, __file__, '--run', name, '--data', str(data), '--photos', str(args.photos),
             '--epochs', str(args.epochs), '--width', str(args.width), '--seconds', str(seconds)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def studio(folder: Path, n: int) -> Path:
    "Studio photos at full size, with a list of validation cars"
    from carvana_unet.studio import car_id, write_studio
    for seed in range(-(-n // 2) + 4): write_studio(folder, [seed], [seed % 16 + 1, (seed + 8) % 16 + 1] if seed >= 4 else [1, 5, 9])
    (folder/'valid_cars.txt').write_text('\n'.join(car_id(seed) for seed in range(4)))
    return folder


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--photos', type=int, default=48, help='photos to learn from (default: %(default)s)')
    p.add_argument('--epochs', type=int, default=4, help='of ours (default: %(default)s)')
    p.add_argument('--width', type=int, default=16, help='of both networks (default: %(default)s)')
    p.add_argument('--data', type=Path, default=os.environ.get('CARVANA_PATH'), help="folder in Kaggle's layout")
    p.add_argument('-o', '--output', type=Path, default=HERE/'results'/'training.json', help='all numbers as JSON (default: %(default)s)')
    p.add_argument('--seconds', type=float, help=argparse.SUPPRESS)
    p.add_argument('--run', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.run: return print(json.dumps(measured(args.run, args.data, args)))
    with tempfile.TemporaryDirectory() as tmp:
        os.environ['XDG_CACHE_HOME'] = tmp  # so that decoding is part of what is measured
        data = Path(args.data).absolute() if args.data else studio(Path(tmp)/'studio', args.photos)
        first = in_own_process('ours', data, args)
        rows = [first, in_own_process('recipe_of_2017', data, args, first['seconds'])]
    print(f"| {args.photos} photos, width {args.width}, half scale | photos a second | peak memory, GB | dice after {first['seconds']:.0f} s |")
    print('|---|---|---|---|')
    for row in rows: print(f"| {row['name'].replace('_', ' ')} | {row['photos_a_second']:.2f} | {row['peak_memory_GB']:.2f} | {row['dice']:.4f} |")
    print(f"\nratio {rows[0]['photos_a_second'] / rows[1]['photos_a_second']:.1f}, dice on {first['scored']} photos")
    result = dict(date=time.strftime('%Y-%m-%d'), command=' '.join(['python benchmarks/training.py', *sys.argv[1:]]),
                  data='CARVANA_PATH' if args.data else 'studio', rows=rows)
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__': main()
