"""Photos a second of `carvana-fleet` beside `carvana-predict`, on the same studio photos in one run, and its memory over many photos.

    python benchmarks/fleet.py [--photos 200] [--many 2000] [--model MODEL.pth] [-o benchmarks/results/fleet.json]

The commands take turns, `--rounds` times. The rate is that of the masks written after the first tenth, so neither the start
of Ray nor that of PyTorch counts; the seconds of the whole command are given, too. One core then does all but the network
of some of the photos, in CPU seconds a photo: what a machine has to do beside its GPUs. `--many` photos of 480x320, hard links
to a few, go through one fleet: the memory (USS, without what processes share) of the command and of a worker, as
the median over each tenth of the photos. `--photos 0` and `--many 0` leave a part as it is in the output file."""
import argparse, json, os, shlex, subprocess, sys, tempfile, time
from datetime import date
from pathlib import Path
from statistics import fmean, median

import psutil
from PIL import Image

from carvana_unet.studio import studio_photo

BIN = Path(sys.executable).parent
POOL = 8    # different photos


def draw(folder, n, size):
    "`n` photos, hard links to a few that are drawn"
    (pool := folder.with_name(f'{folder.name}_pool')).mkdir()
    folder.mkdir()
    for i in range(POOL): Image.fromarray(studio_photo(10_000 + i, 2 * i + 1, size)[0]).save(pool/f'{i}.jpg', quality=90)
    for i in range(n): os.link(pool/f'{i % POOL}.jpg', folder/f'{i:05}.jpg')


def rate(out):
    "Masks a second after the first tenth"
    times = sorted(p.stat().st_mtime_ns for p in out.rglob('*.png'))
    start = len(times) // 10
    return (len(times) - 1 - start) / (times[-1] - times[start]) * 1e9


def run(words, env, watch=None):
    "Seconds of a command; `watch` is called with its process twice a second"
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, words)), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while watch and process.poll() is None: watch(process.pid); time.sleep(.5)
    err = process.communicate()[1]
    if process.returncode: sys.exit(f'{shlex.join(map(str, words))}: {err.strip().splitlines()[-1]}')
    return time.perf_counter() - start


def beside_the_network(folder, model, n=20):
    "CPU seconds a photo: reading (decoding, shrinking), and writing (enlarging, run lengths, mask file)"
    import torch
    from carvana_unet.photos import write_mask
    from carvana_unet.prediction import Predictor
    from carvana_unet.submission import encode
    torch.set_num_threads(1)
    predictor, reading, writing = Predictor(model, 'cpu'), 0, 0
    for p in sorted(folder.iterdir())[:n]:
        start = time.process_time()
        small = predictor.read(p)
        reading += time.process_time() - start
        found = predictor.infer(small)
        start = time.process_time()
        mask = found.mask
        write_mask(mask, folder.with_name('mask.png'))
        encode(mask), found.confidence
        writing += time.process_time() - start
    return dict(reading=reading / n, writing=writing / n)


def memory(pid):
    "USS in MB of the command, and the mean of its workers"
    me = psutil.Process(pid)
    workers = [p for p in me.children(recursive=True) if 'MapWorker' in ' '.join(p.cmdline())]
    return [p and fmean(each.memory_full_info().uss for each in p) / 1e6 for p in ([me], workers)]


def compare(folder, args, env):
    "A row for each command, and what they do beside the network"
    draw(photos := folder/'photos', args.photos, (1280, 1918))
    found = {name: dict(name=name, seconds=[], rate=[]) for name in ('carvana-predict', 'carvana-fleet')}
    for i in range(args.rounds):
        for name, row in found.items():
            out = folder/f'{name}_{i}'
            words = ['-i', photos, '-o', out] if name == 'carvana-predict' else [photos, out]
            row['seconds'].append(run([BIN/name, '-m', args.model, *words], env))
            row['rate'].append(rate(out))
            print(f"{name}: {row['rate'][-1]:.3f} photos a second, {row['seconds'][-1]:.0f} s in all", flush=True)
    predict, fleet = (sum(row['rate']) for row in found.values())
    print(f'carvana-fleet at {fleet / predict:.2f} of carvana-predict', flush=True)
    return dict(data=f'{args.photos} studio photos of 1918x1280', ratio=fleet / predict, rows=list(found.values()),
                host=beside_the_network(photos, args.model))


def grow(folder, args, env):
    "Memory over each tenth of many photos"
    draw(photos := folder/'many', args.many, (320, 480))
    samples = []

    def watch(pid):
        try: samples.append((len(os.listdir(folder/'out'/'masks')), *memory(pid)))
        except (OSError, psutil.Error): pass    # not begun, or just ended

    seconds = run([BIN/'carvana-fleet', '-m', args.model, photos, folder/'out'], env, watch)
    samples = [s for s in samples if s[2]]
    part = lambda i: [s[1:] for s in samples if i <= 10 * s[0] / args.many <= i + 1]
    tenths = [[median(column) for column in zip(*part(i))] for i in range(10)]
    quarter, end = tenths[2], tenths[9]
    print(f'{args.many} photos: command {quarter[0]:.0f}, then {end[0]:.0f} MB; worker {quarter[1]:.0f}, then {end[1]:.0f} MB', flush=True)
    return dict(photos=args.many, seconds=seconds, tenths=tenths)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--photos', type=int, default=200)
    p.add_argument('--rounds', type=int, default=2)
    p.add_argument('--many', type=int, default=2000)
    p.add_argument('--model', default='MODEL.pth')
    p.add_argument('--output', '-o', type=Path)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix='ray', ignore_cleanup_errors=True) as logs:
        env = os.environ | dict(RAY_TMPDIR=logs)
        found = compare(Path(folder), args, env) if args.photos else {}
        if args.many: found['many'] = grow(Path(folder), args, env)
    found |= dict(date=str(date.today()), machine=f'{os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}', cores=os.cpu_count(),
                  command='python benchmarks/fleet.py -o benchmarks/results/fleet.json')
    if not args.output: return
    before = json.loads(args.output.read_text()) if args.output.exists() else {}
    args.output.write_text(json.dumps(before | found, indent=1) + '\n')


if __name__ == '__main__': main()
