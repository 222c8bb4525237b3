"""Work that is killed without warning at every file operation and at random moments: the same command then ends with the same bytes, and nothing half written is left.

Submissions and trainings are killed in tests/test_submission.py and tests/test_training.py as well."""
import json, os, subprocess, sys

import pytest

from carvana_unet.studio import car_id, write_studio
from test_commands import save_tiny

pytestmark = [pytest.mark.reliability('work killed at each file operation and at random moments'),
              pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')]
RANDOM = 6 * int(os.environ.get('RELIABILITY', 1))

# Work is a function of an empty folder. It runs in forked children: to its end, then again and again with a kill, and after each kill to its end.
HARNESS = '''
import json, os, random, shutil, signal, sys, time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from carvana_unet import predict_command
import torch
torch.set_num_threads(1)
{work}

WRITES = 'os.rename os.remove os.mkdir os.rmdir os.truncate os.utime os.link os.symlink'.split()

def child(moment=None, seconds=None):
    "Status of the work, killed before its file operation number `moment`, or after `seconds`"
    pid = os.fork()
    if pid:
        if seconds is not None: time.sleep(seconds); os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = [moment]
    def hook(event, args):
        if event not in WRITES and not (event == 'open' and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)): return
        if isinstance(args[0], int) or os.fspath(args[0]).startswith(('/dev/', '/proc/')): return
        if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
    if moment is not None: sys.addaudithook(hook)
    with open('log', 'a') as log, redirect_stdout(log), redirect_stderr(log):
        try: work(Path('out'))
        except SystemExit as e: os._exit(e.code or 0)
        except BaseException:
            import traceback; traceback.print_exc(); log.flush(); os._exit(99)
    os._exit(0)

def result():
    "The bytes of every file"
    return {{str(p): p.read_bytes() for p in sorted(Path('out').rglob('*')) if p.is_file()}}

def anew(): shutil.rmtree('out', ignore_errors=True); Path('out').mkdir()

anew(); start = time.time(); assert child() == 0, Path('log').read_text(); seconds, wanted = time.time() - start, result()
assert wanted
draw, kills, failed, moment = random.Random(0), 0, [], 0
def check(what, killed):
    global kills
    kills += killed == -signal.SIGKILL
    if child() or result() != wanted: failed.append(f'{{what}}: {{sorted(result().keys() ^ wanted.keys()) or "other bytes"}}')
    anew()
anew()
while (killed := child(moment=moment)) == -signal.SIGKILL: check(f'operation {{moment}}', killed); moment += 1
assert killed == 0, Path('log').read_text()
anew()
for _ in range(int(sys.argv[1])): check('a random moment', child(seconds=draw.uniform(0, 1.2 * seconds)))
print(json.dumps([moment, kills, failed]))
'''
WORK = dict(
    predict='''def work(out): predict_command.carvana_predict(['-i', 'photos', '-o', str(out/'masks'), '-m', 'tiny.pth', '--cpu', '--skip-existing'])''',
    cutouts='''def work(out): predict_command.carvana_predict(['-i', 'photos', '-o', str(out/'cars'), '-f', 'cutout', '--spin', str(out/'car.html'), '-m', 'tiny.pth', '--cpu'])''',
    submit='''
from carvana_unet.submission import carvana_submit
def work(out): carvana_submit(['photos', '-o', str(out/'rows.csv.gz'), '-m', 'tiny.pth', '--cpu'])''',
    score='''
from carvana_unet import prediction, score_command
prediction.time.perf_counter = lambda: 0.  # the page states the seconds a photo
def work(out): score_command.carvana_score(['tiny.pth', 'studio', '--cars', 'cars.txt', '--cpu', '--anyway', '--html', str(out/'score.html')])''',
    fix='''
from carvana_unet.doctor import carvana_doctor
def work(out): shutil.rmtree(out/'fixed', ignore_errors=True); carvana_doctor(['studio', '--fix', str(out/'fixed')])''',
    cache='''
import numpy as np
from carvana_unet.batches import decode_mask, decode_photo, decoded
from carvana_unet.carvana import pairs
def work(out):
    os.environ['XDG_CACHE_HOME'] = str(out)
    x = [decoded(file, decode, .5) for pair in pairs('studio') for file, decode in zip(pair, (decode_photo, decode_mask))]
    (out/'sum.txt').write_text(str([int(np.asarray(a).sum()) for a in x]))
    for entry in (out/'carvana_unet').iterdir(): os.utime(entry)''')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp('kills')
    write_studio(place/'studio', seeds=[1, 2], views=[2, 7], size=(64, 96))
    (place/'photos').mkdir()
    for photo in list(sorted((place/'studio'/'train').iterdir()))[:3]: (place/'photos'/photo.name).write_bytes(photo.read_bytes())
    save_tiny(place/'tiny.pth', cars=[car_id(1)])
    (place/'cars.txt').write_text(car_id(2))
    return place


@pytest.mark.parametrize('name', WORK)
def test_killed_work(name, place, tmp_path, tried):
    for item in place.iterdir(): (tmp_path/item.name).symlink_to(item)
    ended = subprocess.run([sys.executable, '-c', HARNESS.format(work=WORK[name]), str(RANDOM)], cwd=tmp_path, capture_output=True, text=True, timeout=1200,
                           env=os.environ | dict(OMP_NUM_THREADS='1', XDG_CACHE_HOME=str(tmp_path/'home')))
    assert ended.returncode == 0, ended.stderr
    operations, kills, failed = json.loads(ended.stdout.splitlines()[-1])
    assert operations > 2 and kills >= operations
    tried(operations + RANDOM, failed)
