"""Run lengths: `carvana_unet.submission` beside pycocotools' compiled encoder, in one run, on full-size masks.

    pip install pycocotools
    python benchmarks/rle.py [--photos 32] [--repeats 20] [-o benchmarks/results/rle.json]

The masks are the studio's, or with CARVANA_PATH the competition's. COCO's encoder takes columns in Fortran order, which
our masks and Carvana's rows are not, so it is timed twice: with the copy into that order, as one would have to call it,
and alone, on an array that has the order already. Milliseconds a mask: the median over the masks of the best of the
repeats, the methods taken in turn so that a busy moment hits all of them."""
import argparse, json, os, time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
from pycocotools import mask as coco

from carvana_unet.photos import read_mask
from carvana_unet.submission import decode, encode
from carvana_unet.studio import studio_photo


def masks(n):
    "Full-size masks, from all around the cars: the competition's where they are, else the studio's"
    if (data := os.environ.get('CARVANA_PATH')):
        files = sorted((Path(data)/'train_masks').glob('*_mask.gif'))
        return [read_mask(files[i * len(files) // n]) for i in range(n)]
    return [studio_photo(10_000 + i, i % 16 + 1)[1] for i in range(n)]


def methods(mask):
    "What is timed, by name, each a function of no arguments"
    column_major = np.asfortranarray(mask.view(np.uint8))
    ours, theirs = encode(mask), coco.encode(column_major)
    return {'encode': lambda: encode(mask),
            'pycocotools encode': lambda: coco.encode(np.asfortranarray(mask.view(np.uint8))),
            'pycocotools encode, order ready': lambda: coco.encode(column_major),
            'decode': lambda: decode(ours, mask.shape),
            'pycocotools decode': lambda: coco.decode(theirs)}


def best(functions, repeats):
    "Fewest milliseconds of each function, called in turn"
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, f in functions.items():
            start = time.perf_counter()
            f()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: min(t) for name, t in times.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    p.add_argument('--photos', type=int, default=32)
    p.add_argument('--repeats', type=int, default=20)
    p.add_argument('-o', '--output', type=Path, help='write the numbers as JSON here')
    args = p.parse_args()
    chosen = masks(args.photos)
    for mask in chosen: assert (decode(encode(mask), mask.shape) == mask).all()
    rows = [best(methods(mask), args.repeats) for mask in chosen]
    print(f'{len(chosen)} masks of {"Carvana" if os.environ.get("CARVANA_PATH") else "the studio"}, '
          f'{median(len(encode(m)) for m in chosen):,.0f} characters each')
    found = [dict(method=name, ms=median(r[name] for r in rows), ratio=median(r[name] / r['encode'] for r in rows)) for name in rows[0]]
    for r in found: print(f"{r['method']:34}{r['ms']:6.2f} ms, {r['ratio']:5.2f} times encode")
    if args.output:
        about = dict(date=f'{date.today()}', data='Carvana' if os.environ.get('CARVANA_PATH') else 'studio', masks=len(chosen),
                     command=f'python benchmarks/rle.py --photos {args.photos} --repeats {args.repeats}')
        args.output.write_text(json.dumps(about | dict(rows=found), indent=1) + '\n')


if __name__ == '__main__': main()
