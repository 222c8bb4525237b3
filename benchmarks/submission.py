"""What a submission costs besides the network: rows a second, peak memory, size of the file; and what the whole job takes.

    python benchmarks/submission.py [--rows 2000] [--photos 4] [--gzip] [-o benchmarks/results/submission.json]
    nice -n 19 python benchmarks/submission.py --rows 100064

The network is replaced by probabilities that were stored before (full-size studio masks with a soft edge, in memory);
everything else is the real thing: a folder of as many photos, thresholding, encoding, writing, reading all of it again,
merging, verifying. `--photos` real predictions in the same run, on this machine's processor or GPU, whichever the
Predictor takes, give the seconds a photo from which the time of the whole job is worked out: so many photos after each
other, plus the rest, without counting on the two going on at the same time."""
import argparse, json, os, resource, shlex, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageFilter

from carvana_unet.studio import studio_photo
from carvana_unet.submission import submit

TEST_SET = 100_064
POOL = 8  # different photos and probabilities; the names are hard links to them


def memory():
    "The most that this process has held so far, MB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == 'darwin' else 1e3)


def make_pool(folder):
    "Draw photos into a folder, and store a probability for each, float32 (1280, 1918)"
    for i in range(POOL):
        photo, mask = studio_photo(10_000 + i, 2 * i + 1)
        Image.fromarray(photo).save(folder/f'{i}.jpg', quality=90)
        soft = Image.fromarray(mask).convert('L').filter(ImageFilter.GaussianBlur(2))
        np.save(folder/f'{i}.npy', np.asarray(soft, np.float32) / 255)


def run(rows, folder, probabilities, output, pool):
    "Seconds until the last row was written, seconds in all, memory after a tenth of the rows, the record"
    for i in range(rows): os.link(pool/f'{i % POOL}.jpg', folder/f'{i // 16:012x}_{i % 16 + 1:02}.jpg')
    number = lambda photo: (int(photo.name[:12], 16) * 16 + int(photo.name[13:15]) - 1) % POOL
    predict = lambda photo: probabilities[number(photo)] > .5
    early, written = [], []

    def stream(photos):
        for i, photo in enumerate(photos):
            yield photo, predict(photo)
            if i == len(photos) // 10: early.append(memory())
        written.append(time.perf_counter())

    start = time.perf_counter()
    made = submit(folder, predict, output, stream=stream, progress=sys.stderr.isatty())
    return written[0] - start, time.perf_counter() - start, early[0], made


def seconds_a_photo(photos):
    "Median time of a real prediction from a file, after a first one that is not counted; and where it ran"
    from carvana_unet.prediction import Predictor
    predictor = Predictor()
    predictor.mask(photos[0])
    times = []
    for photo in photos:
        start = time.perf_counter()
        predictor.mask(photo)
        times.append(time.perf_counter() - start)
    return median(times), predictor.device


def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    p.add_argument('--rows', type=int, default=2000)
    p.add_argument('--photos', type=int, default=4, help='real predictions to time, 0 for none')
    p.add_argument('--gzip', action='store_true', help='write SUBMISSION.csv.gz')
    p.add_argument('-o', '--output', type=Path, help='write the numbers as JSON here')
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        pool, folder = Path(tmp)/'pool', Path(tmp)/'test'
        pool.mkdir(); folder.mkdir()
        # drawn in another process, as drawing takes more memory than what is measured here
        with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as other: other.submit(make_pool, pool).result()
        probabilities = [np.load(pool/f'{i}.npy') for i in range(POOL)]
        before, used = memory(), time.process_time()
        written, total, early, made = run(args.rows, folder, probabilities, Path(tmp)/f'SUBMISSION.csv{".gz" * args.gzip}', pool)
        peak, used = memory(), time.process_time() - used  # before torch is there
        print(f"{args.rows:,} rows of 1918x1280, {made['bytes'] / 1e6:,.1f} MB")
        print(f'threshold, encode, write    {args.rows / written:10,.0f} rows a second')
        print(f'read, merge, verify         {args.rows / (total - written):10,.0f} rows a second')
        print(f'all of it                   {args.rows / total:10,.0f} rows a second, {total:,.0f} s ({1000 * used / args.rows:.1f} ms of processor time a row)')
        print(f'memory: {before:,.0f} MB before (the stored probabilities among them), {early:,.0f} MB after a tenth of the rows, {peak:,.0f} MB at the peak')
        found = dict(date=f'{date.today()}', machine=f'{os.cpu_count()} cores', data='studio', command='python benchmarks/submission.py ' + shlex.join(sys.argv[1:]),
                     rows=args.rows, bytes=made['bytes'], seconds_writing=written, seconds=total, processor_seconds=used, memory_MB=[before, early, peak])
        if args.photos:
            seconds, device = seconds_a_photo([pool/f'{i % POOL}.jpg' for i in range(args.photos)])
            rest = total / args.rows
            found |= dict(device=str(device), seconds_a_photo=seconds)
            print(f'a real prediction on {device}: {seconds:.2f} s; the rest: {rest * 1000:.1f} ms a photo')
            print(f'worked out for {TEST_SET:,} photos with this machine: {TEST_SET * (seconds + rest) / 3600:,.1f} hours, {TEST_SET * rest / 60:,.0f} minutes of them without the network')
            if device.type == 'cpu': print('no GPU here: what one would take is not measured')
        if args.output: args.output.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__': main()
