"""Averages of the weights of two networks, between one that is better in the studio and one that is better in the street.

    python benchmarks/front.py CARVANA OUTSIDE FROM.pth TO.pth [-o benchmarks/results/front.json]

Both networks have one architecture, and one was trained on from the other, so that averages of their weights work as well.
Scored on every fourth photo of the first ten cars of valid_cars.txt and on the street's validation photos."""
import argparse, json, os, platform, shlex, sys
from dataclasses import replace
from datetime import date
from pathlib import Path

from tqdm import tqdm

from carvana_unet.carvana import pairs, read_cars
from carvana_unet.checkpoints import load_checkpoint
from carvana_unet.dice import dice
from carvana_unet.photos import read_mask
from carvana_unet.prediction import Predictor


def between(a, b, share):
    "A checkpoint with `share` of the weights of `b`, the rest of `a`"
    mixed = {k: ((1 - share) * a.weights[k].float() + share * w.float()) if w.is_floating_point() else w for k, w in b.weights.items()}
    return replace(b, weights=mixed)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('carvana', 'outside', 'first', 'second'): p.add_argument(name, type=Path)
    p.add_argument('--shares', nargs='+', type=float, default=[0, .25, .5, .75, 1], help='of the weights of the second network')
    p.add_argument('-o', '--output', type=Path, help='write the numbers as JSON here')
    args = p.parse_args()
    chosen = lambda folder, n: [pair for pair in pairs(folder) if pair.car in read_cars(folder/'valid_cars.txt')[:n]]
    sets, rows = dict(studio=chosen(args.carvana, 10)[::4], street=chosen(args.outside, None)), []
    a, b = load_checkpoint(args.first), load_checkpoint(args.second)
    for share in tqdm(args.shares):
        predictor = Predictor(between(a, b, share), crf=False)
        rows.append(dict(share=share) | {kind: sum(dice(predictor.predict(pair.photo).mask, read_mask(pair.mask)) for pair in items) / len(items) for kind, items in sets.items()})
    for r in rows: print(f"{r['share']:.2f} of the second network: studio {r['studio']:.5f}, street {r['street']:.4f}")
    found = dict(date=str(date.today()), command=shlex.join(['python', *sys.argv]), machine=f'{os.cpu_count()} cores, {platform.machine()}',
                 data=', '.join(f'{len(items)} {kind} photos' for kind, items in sets.items()), rows=rows)
    if args.output: args.output.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__': main()
