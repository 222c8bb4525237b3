"""Fleets with real Ray on this machine: workers and the whole job killed, completed with --resume, every photo once and the same masks

Short forms of it run always; SOAK=1 (`make soak`) kills ten times at random."""
import json, os, random, re, shutil, subprocess, sys, tempfile, time
from contextlib import suppress
from itertools import product
from pathlib import Path
from uuid import uuid4

import pytest

pytest.importorskip('ray', reason="ray is not installed: pip install 'carvana-unet[ray]'")
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.parquet as pq
from carvana_unet.carvana import pairs
from carvana_unet.explorer import find_photos
from carvana_unet.photos import read_mask
from carvana_unet.prediction import Predictor
from carvana_unet.scoring import worst_first
from carvana_unet.studio import write_studio
from carvana_unet.submission import decode

BIN = Path(sys.executable).parent
SOAK = bool(os.environ.get('SOAK'))
MODEL, SCALE = 'MODEL_small.pth', .1     # small: what is killed need not be accurate


@pytest.fixture(scope='module')
def studio(tmp_path_factory):
    return write_studio(tmp_path_factory.mktemp('fleet')/'studio', range(60, 64 if not SOAK else 72), views=[1, 4, 7, 10, 13, 16], size=(240, 360))


@pytest.fixture(scope='module')
def photos(studio):
    "A folder with subfolders, and a photo that is damaged; many copies, where a job has to live through ten kills"
    folder = studio.parent/'photos'
    for branch, p in product('abcdefgh' if SOAK else 'a', pairs(studio)):
        (folder/branch/p.car).mkdir(parents=True, exist_ok=True)
        shutil.copy(p.photo, folder/branch/p.car/p.photo.name)
    damaged = sorted(folder.rglob('*.jpg'))[7]
    damaged.write_bytes(damaged.read_bytes()[:2000])
    return folder


@pytest.fixture(scope='module')
def cluster():
    "A Ray cluster of this machine, with two workers and a token of its own; the environment that connects to it"
    folder = Path(tempfile.mkdtemp(prefix='ray'))   # for logs and sockets, whose names have to be short
    env = os.environ | dict(OMP_NUM_THREADS='1', RAY_USAGE_STATS_ENABLED='0', RAY_AUTH_MODE='token', RAY_AUTH_TOKEN=uuid4().hex)
    words = '--head --block --port 0 --num-cpus 2 --object-store-memory 200000000 --include-dashboard false --temp-dir'.split()
    with open(folder/'log', 'w') as log: head = subprocess.Popen([sys.executable, '-m', 'ray.scripts.scripts', 'start', *words, folder], env=env, stdout=log, stderr=log)
    end = time.monotonic() + 300
    while not (found := re.search(r"--address='([^']+)'", (folder/'log').read_text())):
        if head.poll() is not None or time.monotonic() > end: pytest.fail((folder/'log').read_text().splitlines()[-1])
        time.sleep(.1)
    yield env | dict(RAY_ADDRESS=found[1])
    everything = psutil.Process(head.pid).children(recursive=True)
    head.terminate()
    head.wait()
    for p in everything:
        with suppress(psutil.NoSuchProcess): p.kill()
    psutil.wait_procs(everything, 10)
    shutil.rmtree(folder, ignore_errors=True)


def fleet(cluster, *words):
    words = [BIN/'carvana-fleet', '-m', MODEL, '--address', cluster['RAY_ADDRESS'], *map(str, words)]
    return subprocess.Popen(words, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    out, err = process.communicate(timeout=1500)
    return process.returncode, out, err


def rows(out):
    "All rows of the table, by name; each name once, whatever was killed"
    if not (out/'table').is_dir(): return {}
    found = pds.dataset(out/'table', format='parquet').to_table().to_pylist()
    names = [r['name'] for r in found]
    assert len(names) == len(set(names))
    return {r['name']: r for r in found}


def workers():
    "The processes that predict, below this one"
    found = []
    for p in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if 'MapWorker' in ' '.join(p.cmdline()): found.append(p)
    return found


def written(out):
    return {p: p.stat().st_mtime_ns for p in (out/'masks').rglob('*.png')} if out.exists() else {}


def wait_for_a_mask(process, out, seconds=1500):
    "Wait until a worker has written another mask; False if the job ended before"
    end, before = time.monotonic() + seconds, len(written(out))
    while process.poll() is None and time.monotonic() < end:
        if len(written(out)) > before and workers(): return True
        time.sleep(.05)
    return False


def test_killed_workers_and_jobs_end_in_the_same_table_and_masks(photos, cluster, tmp_path):
    out, rng, killed = tmp_path/'out', random.Random(0), []
    process = fleet(cluster, photos, out, '-s', SCALE)
    plan = [rng.choice(['worker', 'job']) for _ in range(10)] if SOAK else ['worker', 'job']
    for what in plan:
        if not wait_for_a_mask(process, out): break
        if SOAK: time.sleep(rng.random())
        done, old = rows(out), written(out)
        if what == 'worker' and (alive := workers()): rng.choice(alive).kill()
        elif what == 'job':
            process.kill()
            process.wait()
            process = fleet(cluster, photos, out, '-s', SCALE, '--resume')
        killed.append(what)
    status, _, err = finished(process)
    assert (status, len(killed)) == (1, len(plan)), err     # status 1: a photo is damaged
    found, predictor, names = rows(out), Predictor(MODEL, 'cpu', scale=SCALE), [str(p.relative_to(photos)) for p in sorted(photos.rglob('*.jpg'))]
    assert sorted(found) == names
    assert {name: r for name, r in found.items() if name in done} == done   # a row, once written, is not predicted again
    assert all(written(out)[p] == when for p, when in old.items() if str(p.relative_to(out/'masks')).removesuffix('.png') in done)
    assert [name for name in names if found[name]['error']] == [names[7]] and names[7] in found[names[7]]['error']
    for name in names[:7] + names[8:]:
        p, r = predictor.predict(photos/name), found[name]
        np.testing.assert_array_equal(decode(r['rle'], (r['height'], r['width'])), p.mask)
        np.testing.assert_array_equal(read_mask(out/'masks'/f'{name}.png'), p.mask)
        assert r['area'] == p.mask.sum() and abs(r['confidence'] - p.confidence) < 1e-6
    assert not [p for p in out.rglob('.*')]     # nothing is left of what was killed


def test_an_output_that_cannot_be_written_stops_the_run_with_one_line(photos, cluster, tmp_path):
    (tmp_path/'masks').touch()  # a file where the folder should be
    status, _, err = finished(fleet(cluster, sorted(photos.rglob('*.jpg'))[0], tmp_path, '-s', SCALE))
    line = err.strip().splitlines()[-1]
    assert status == 1 and str(tmp_path) in line and line.endswith('; then run again with --resume') and 'Traceback' not in err


@pytest.fixture(scope='module')
def parquet_fleet(studio, cluster, tmp_path_factory):
    "A fleet of six photos from a Parquet file, as cut-outs"
    folder = tmp_path_factory.mktemp('parquet')
    some = pairs(studio)[:6]
    names = [f'{p.name}.jpg' for p in some]
    contents = [p.photo.read_bytes() for p in some]
    pq.write_table(pa.table(dict(name=[*names, '../away.jpg'], bytes=[*contents, contents[0]], price=range(7))), folder/'fleet.parquet')
    return folder/'fleet.parquet', folder/'out', names, finished(fleet(cluster, folder/'fleet.parquet', folder/'out', '-f', 'cutout'))


def test_photos_in_parquet_become_cutouts(parquet_fleet):
    _, out, names, (status, text, err) = parquet_fleet
    found = rows(out)
    assert status == 1 and '7 photos, 1 failed' in text, err
    assert sorted(found) == ['../away.jpg', *names] and 'leaves the output folder' in found['../away.jpg']['error']
    assert not (out.parent/'away.jpg.png').exists() and not (out/'away.jpg.png').exists()
    for name in names:
        mask = decode(found[name]['rle'], (240, 360))
        assert (read_mask(out/'cutouts'/f'{name}.png') != mask).mean() < 1e-3    # its edge is soft


def score(*words):
    done = subprocess.run([BIN/'carvana-score', *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_score_lists_the_lowest_confidence_first(parquet_fleet, tmp_path):
    _, out, names, _ = parquet_fleet
    status, text, err = score(out, '--json', tmp_path/'fleet.json')
    report = json.loads((tmp_path/'fleet.json').read_text())
    assert status == 0 and '7 photos, 1 failed' in text and '../away.jpg' in text, err
    worst = min((r for r in rows(out).values() if not r['error']), key=lambda r: r['confidence'])
    assert worst['name'] in text and report['check'][0]['name'] == worst['name']
    order = [r['confidence'] for r in worst_first(out)]
    assert order == sorted(order) and len(order) == 6


def test_the_score_compares_a_fleet_with_true_masks(parquet_fleet, studio, tmp_path):
    _, out, names, _ = parquet_fleet
    (truth := tmp_path/'truth').mkdir()
    for p in pairs(studio)[:6]: shutil.copy(p.mask, truth)
    status, text, err = score(out, truth)
    assert status == 0 and 'photos, cars' in text, err
    value = float(next(line for line in text.splitlines() if line.lower().startswith('mean dice')).split()[2])
    assert value > .9


def test_training_takes_the_photos_of_a_parquet_fleet(parquet_fleet, tmp_path):
    from carvana_unet.fleet import training_folder
    source, out, names, _ = parquet_fleet
    some = [r['name'] for r in worst_first(out, 3)]
    found = training_folder(out, tmp_path/'check', some)
    assert [p.name for p in found] == [name.removesuffix('.jpg') for name in some] and sorted(found) == pairs(tmp_path/'check')
    contents = dict(zip(*(pq.read_table(source)[c].to_pylist() for c in ('name', 'bytes'))))
    for p in found: assert p.photo.read_bytes() == contents[p.photo.name]
    with pytest.raises(ValueError, match='no folder here'): find_photos(out)


@pytest.mark.parametrize('words, expected', {
    'no folder': (['nowhere', 'out'], 'nowhere: there is no such folder or photo; check the name'),
    'nothing in it': (['empty', 'out'], 'empty: no photos'),
    'no such table': (['nowhere.parquet', 'out'], 'nowhere.parquet: is not a Parquet table'),
    'no cluster': (['photo.jpg', 'out', '--address', '127.0.0.1:9'], '127.0.0.1:9: no Ray cluster answers'),
    'no model': (['photo.jpg', 'out', '-m', 'nowhere.pth'], 'nowhere.pth: no such model'),
    'another run': (['photo.jpg', 'old'], 'old: has the results of an earlier run; pass --resume'),
    'another model': (['photo.jpg', 'old', '--resume'], 'old: was begun with other settings'),
    'an address that is none': (['photo.jpg', 'out', '--address', ''], 'name is empty'),
}.values(), ids=str)
def test_a_wrong_command_line_is_one_line(words, expected, tmp_path, monkeypatch, capsys):
    "In this process, with a stand-in for the cluster: none of these may reach it"
    from carvana_unet import fleet
    monkeypatch.chdir(tmp_path)
    (tmp_path/'empty').mkdir()
    (tmp_path/'old'/'table').mkdir(parents=True)
    (tmp_path/'old'/'table'/'0.parquet').touch()
    (tmp_path/'old'/'fleet.json').write_text(json.dumps(dict(model='another')))
    (tmp_path/'photo.jpg').write_bytes(b'')
    with pytest.raises(SystemExit) as stopped: fleet.carvana_fleet(['-m', MODEL, *words])
    err = capsys.readouterr().err.strip()
    assert stopped.value.code in (1, 2) and expected in err and len(err.splitlines()) == 1


def test_what_is_not_installed_is_named_before_anything_is_read(tmp_path, monkeypatch, capsys):
    from carvana_unet import fleet
    monkeypatch.setattr(fleet, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit) as stopped: fleet.carvana_fleet(['nowhere', str(tmp_path/'out')])
    assert (stopped.value.code, capsys.readouterr().err) == (1, "pyarrow and ray not installed; pip install 'carvana-unet[ray]'\n")
