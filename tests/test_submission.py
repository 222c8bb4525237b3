"""Submissions under kills: at every line, at random moments, in one process and in several.

Short forms of it run always; SOAK=1 (`make soak`) kills at every line and 50 times at random."""
import gzip, os, random, shutil, signal, subprocess, sys, time, tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carvana_unet.photos import PhotoError, read_mask
from carvana_unet.studio import write_studio
from carvana_unet.submission import HEADER, SubmissionError, decode, read_rows, submit
from test_commands import BIN, assert_faults, call, environment, model  # noqa: F401, a fixture

SOAK = bool(os.environ.get('SOAK'))

# Instead of a network: the studio's own masks, after as many seconds as a network would take.
PREDICT = '''
import os, signal, sys, time
from pathlib import Path
from carvana_unet.photos import read_mask
from carvana_unet.submission import submit
folder, output, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
sample, made_with = folder.parent/'sample.csv', dict(model='truth')
def predict(photo):
    time.sleep(seconds)
    return read_mask(folder.parent/'train_masks'/f'{photo.stem}_mask.gif')
'''
RANK = PREDICT + 'submit(folder, predict, output, sample, made_with, int(sys.argv[4]), int(sys.argv[5]))'


@pytest.fixture(scope='module')
def studio(tmp_path_factory):
    "Twelve small photos and a sample submission in an order of its own; the folder of the photos"
    data = write_studio(tmp_path_factory.mktemp('data'), seeds=[1, 2, 3], views=[2, 6, 10, 14], size=(64, 96))
    names = [p.name for p in sorted((data/'train').iterdir())]
    random.Random(0).shuffle(names)
    (data/'sample.csv').write_text(HEADER + ''.join(f'{n},1 1\n' for n in names))
    return data/'train'


@pytest.fixture(scope='module')
def truth(studio):
    "Photo to mask"
    return lambda photo: read_mask(studio.parent/'train_masks'/f'{photo.stem}_mask.gif')


@pytest.fixture(scope='module')
def wanted(studio, truth, tmp_path_factory):
    "The bytes of the submission that a single, undisturbed process writes"
    output = tmp_path_factory.mktemp('wanted')/'SUBMISSION.csv'
    submit(studio, truth, output, studio.parent/'sample.csv', dict(model='truth'))
    rows = list(read_rows(output))
    assert [n for n, _ in rows] == [n for n, _ in read_rows(studio.parent/'sample.csv')]
    for name, rle in rows: assert (decode(rle, (64, 96)) == truth(studio/name)).all()
    return output.read_bytes()


def left(folder):
    "What lies in a folder"
    return sorted(p.name for p in folder.iterdir())


# kills

EVERY_LINE = PREDICT + '''
def child(kill_at):
    "Submit in a process of its own, killed when it comes to a line of the submission's module for the time `kill_at`"
    if (pid := os.fork()): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count = 0
    def trace(frame, event, arg):
        nonlocal count
        if not frame.f_code.co_filename.endswith('submission.py'): return
        if event == 'line':
            if count == kill_at: os.kill(os.getpid(), signal.SIGKILL)
            count += 1
        return trace
    try:
        if kill_at is not None: sys.settrace(trace)
        submit(folder, predict, output, sample, made_with)
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)

wanted = Path(sys.argv[4]).read_bytes()
kills, step, at = 0, int(sys.argv[5]), int(sys.argv[6])
while (code := child(at)) == -signal.SIGKILL:
    kills, at = kills + 1, at + step
    assert child(None) == 0, at
    assert Path(output).read_bytes() == wanted, at
    for path in Path(output).parent.iterdir(): path.unlink()
assert code == 0
print(kills)
'''


@pytest.mark.reliability('work killed at each file operation and at random moments')
def test_a_kill_at_any_line(studio, wanted, tmp_path, tried):
    "SIGKILL when the run comes to a line, restart, same bytes and nothing else left; then the same a few lines later"
    (tmp_path/'wanted').write_bytes(wanted)
    (tmp_path/'out').mkdir()
    step, start = (1, 0) if SOAK else (23, random.randrange(23))
    run = subprocess.run([sys.executable, '-c', EVERY_LINE, studio, tmp_path/'out/SUBMISSION.csv', '0', tmp_path/'wanted',
                          str(step), str(start)], capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) * step > 200  # so many lines a run takes
    tried(int(run.stdout))


@pytest.mark.reliability('work killed at each file operation and at random moments')
@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_ranks_and_random_kills(world_size, studio, wanted, tmp_path, tried):
    "Processes side by side, one of them killed at a random moment, again and again, and each time started anew"
    output, chance, kills = tmp_path/'SUBMISSION.csv', random.Random(world_size), 0

    def start(rank): return subprocess.Popen([sys.executable, '-c', RANK, studio, output, '.05', str(rank), str(world_size)])

    running = {rank: start(rank) for rank in range(world_size)}
    while kills < (50 if SOAK else 4):
        time.sleep(chance.uniform(0, 1.5))
        rank = chance.randrange(world_size)
        running[rank].kill()
        if running[rank].wait() == -signal.SIGKILL: kills += 1
        if output.exists():  # it was quicker than the kills
            for process in running.values(): process.wait()
            assert output.read_bytes() == wanted
            for path in tmp_path.iterdir(): shutil.rmtree(path) if path.is_dir() else path.unlink()
            running = {rank: start(rank) for rank in range(world_size)}
        else: running[rank] = start(rank)
    assert [process.wait(120) for process in running.values()] == [0] * world_size
    assert output.read_bytes() == wanted
    assert left(tmp_path) == ['SUBMISSION.csv', 'SUBMISSION.csv.json']
    tried(kills)


def test_another_number_of_processes_goes_on(studio, truth, wanted, tmp_path):
    "Begun by rank 1 of 3, torn, finished by one process"
    output, options = tmp_path/'SUBMISSION.csv', dict(sample=studio.parent/'sample.csv', made_with=dict(model='truth'))
    assert submit(studio, truth, output, **options, rank=1, world_size=3) is None
    part, = (tmp_path/'SUBMISSION.csv.parts').iterdir()
    part.write_bytes(part.read_bytes()[:-7])
    predicted = []
    submit(studio, lambda photo: predicted.append(photo) or truth(photo), output, **options)
    assert len(predicted) == 12 - 3 + 8  # three of the four rows were whole; eight are compared at the end
    assert output.read_bytes() == wanted


@pytest.mark.parametrize('damage', [b'\0' * 50, b'\n', b'123\n', b'0123_01.jpg,1 2 3', b'\xff\xfe,\n'])
def test_rubbish_after_a_power_cut(damage, studio, truth, wanted, tmp_path):
    "Some file systems leave other bytes than those written at the end of a file"
    output, options = tmp_path/'SUBMISSION.csv', dict(sample=studio.parent/'sample.csv', made_with=dict(model='truth'))
    submit(studio, truth, output, **options, rank=0, world_size=2)
    part, = (tmp_path/'SUBMISSION.csv.parts').iterdir()
    part.write_bytes(part.read_bytes() + damage)
    (part.parent/'another.csv').write_bytes(damage)
    submit(studio, truth, output, **options)
    assert output.read_bytes() == wanted


# what is refused

def test_other_settings_are_refused(studio, truth, tmp_path):
    output = tmp_path/'SUBMISSION.csv'
    submit(studio, truth, output, made_with=dict(model='a', threshold=.5), rank=0, world_size=2)
    before = {p: p.read_bytes() for p in (tmp_path/'SUBMISSION.csv.parts').iterdir()}
    for other in (dict(model='b', threshold=.5), dict(model='a', threshold=.6), dict(model='a')):
        with pytest.raises(SubmissionError, match='begun with'): submit(studio, truth, output, made_with=other)
    shutil.copytree(studio, tmp_path/'test_hq')
    with pytest.raises(SubmissionError, match='photos train, now test_hq'):
        submit(tmp_path/'test_hq', truth, output, made_with=dict(model='a', threshold=.5))
    assert {p: p.read_bytes() for p in (tmp_path/'SUBMISSION.csv.parts').iterdir()} == before


def test_a_changed_submission_is_neither_taken_nor_overwritten(studio, truth, tmp_path):
    output = tmp_path/'SUBMISSION.csv'
    submit(studio, truth, output)
    output.write_bytes(output.read_bytes()[:-2] + b'9\n')
    changed = output.read_bytes()
    with pytest.raises(SubmissionError, match='already there'): submit(studio, truth, output)
    assert output.read_bytes() == changed


def test_rows_of_another_predictor_are_found_out(studio, truth, tmp_path):
    "Same settings said, other masks made: the comparison at the end sees it, and there is no submission"
    output = tmp_path/'SUBMISSION.csv'
    submit(studio, lambda photo: truth(photo)[::-1], output, rank=0, world_size=2)
    with pytest.raises(SubmissionError, match='differ from a fresh prediction'): submit(studio, truth, output)
    assert left(tmp_path) == ['SUBMISSION.csv.parts']


@pytest.mark.parametrize('world_size', [1, 2])
def test_unreadable_photos_are_listed_and_mended(world_size, studio, truth, wanted, tmp_path):
    bad = sorted(p.name for p in studio.iterdir())[3:6]

    def reads(photo):
        if photo.name in bad: raise PhotoError(f'{photo}: cannot be decoded')
        return truth(photo)

    output, options = tmp_path/'SUBMISSION.csv', dict(sample=studio.parent/'sample.csv', made_with=dict(model='truth'), world_size=world_size)
    told = set()
    for rank in range(world_size):
        with pytest.warns(UserWarning) as caught, pytest.raises(SubmissionError, match='photos failed; fix them') as error:
            submit(studio, reads, output, rank=rank, **options)
        assert len([w for w in caught if 'cannot be decoded' in str(w.message)]) == str(error.value).count('.jpg')
        told |= {n for n in bad if n in str(error.value)}
    assert told == set(bad) and not output.exists()
    bad.clear()
    for rank in range(world_size): submit(studio, truth, output, rank=rank, **options)
    assert output.read_bytes() == wanted


# bytes and memory

def test_gzip_gives_the_same_bytes_again(studio, truth, wanted, tmp_path):
    files = [tmp_path/'a.csv.gz', tmp_path/'other name.csv.gz']
    for file in files:
        submit(studio, truth, file, studio.parent/'sample.csv', dict(model='truth'))
        time.sleep(1.1 if file == files[0] else 0)  # gzip counts seconds
    assert gzip.decompress(files[0].read_bytes()) == wanted
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(files[0].read_bytes()) < len(wanted) / 1.5


def test_memory_does_not_grow_with_the_rows(tmp_path):
    "Ten times as many rows, of 18 kB each: the memory in use at the peak grows by a fraction of a kB a row"
    stripes = np.indices((64, 96)).sum(0) % 2 == 1

    def peak(n):
        folder = tmp_path/str(n)
        folder.mkdir()
        Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(folder/'0.jpg')
        for i in range(1, n): os.link(folder/'0.jpg', folder/f'{i}.jpg')
        tracemalloc.start()
        made = submit(folder, lambda photo: stripes, tmp_path/f'{n}.csv')
        assert made['bytes'] > n * 15_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(10)
    assert peak(1000) - peak(100) < 900 * 1000


# the command

@pytest.mark.parametrize('launcher', ['torchrun --standalone --nproc-per-node 2 --no-python',
    'accelerate launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --no_python'])
def test_command_in_two_processes(launcher, studio, model, tmp_path):
    "As a user starts them; they write the bytes of one"
    words = [studio, '--sample', studio.parent/'sample.csv', '-m', model, '--cpu']
    assert call('submit', *words, '-o', 'one.csv', cwd=tmp_path).stdout == 'one.csv: 12 rows, 0.0 MB, verified\n'
    program, *options = launcher.split()
    run = subprocess.run([*map(str, [BIN/program, *options, BIN/'carvana-submit', *words, '-o', 'two.csv'])], cwd=tmp_path,
                         env=environment(), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert 'two.csv: 12 rows, 0.0 MB, verified' in run.stdout
    assert (tmp_path/'two.csv').read_bytes() == (tmp_path/'one.csv').read_bytes()
    assert left(tmp_path) == ['one.csv', 'one.csv.json', 'two.csv', 'two.csv.json']


def test_command_goes_on_after_one_of_three_is_killed(studio, model, tmp_path):
    "Killed while it waits for a photo that does not come; torchrun starts all of them again, and the bytes are those of one process"
    words = ['test', '-m', model, '--cpu', '-o']
    late = Path(shutil.copytree(studio, tmp_path/'test'))/sorted(os.listdir(studio))[10]  # of the second process
    assert call('submit', *words, 'one.csv', cwd=tmp_path).returncode == 0
    late.unlink()
    os.mkfifo(late)
    torchrun = [BIN/'torchrun', '--nproc-per-node', '3', '--max-restarts', '1', '--standalone', '--no-python', BIN/'carvana-submit']
    run = subprocess.Popen([*map(str, torchrun), *map(str, words), 'three.csv'], cwd=tmp_path, env=environment(),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rows = lambda: sum(part.read_bytes().count(b'\n') for part in tmp_path.glob('three.csv.parts/*.csv'))
    while run.poll() is None and rows() < 10: time.sleep(.01)
    shutil.copy(studio/late.name, tmp_path/'late')
    (tmp_path/'late').replace(late)
    ranks = sorted(int(p.name) for p in Path('/proc').iterdir() if p.name.isdecimal() and started_by(run.pid, p))
    os.kill(ranks[1], signal.SIGKILL)
    out, errors = run.communicate(timeout=300)
    assert run.returncode == 0 and 'exitcode: -9' in errors, errors
    assert 'three.csv: 12 rows' in out
    assert (tmp_path/'three.csv').read_bytes() == (tmp_path/'one.csv').read_bytes()
    assert left(tmp_path) == ['one.csv', 'one.csv.json', 'test', 'three.csv', 'three.csv.json']


def started_by(parent, process):
    "Is `process`, a folder of /proc, a child of `parent`?"
    try: return (process/'stat').read_text().rpartition(')')[2].split()[1] == str(parent)
    except OSError: return False  # it has ended


def test_command_tells_of_each_unreadable_photo(studio, model, tmp_path):
    folder = Path(shutil.copytree(studio, tmp_path/'test'))
    half, words = sorted(folder.iterdir())[4:6]
    half.write_bytes(half.read_bytes()[:300])
    words.write_text('these are words')
    run = call('submit', folder, '-m', model, cwd=tmp_path)
    assert_faults(run, half.name, words.name, '2 of 12 photos failed')
    assert left(tmp_path) == ['SUBMISSION.csv.parts', 'test']
    for photo in half, words: shutil.copy(studio/photo.name, photo)
    assert call('submit', folder, '-m', model, cwd=tmp_path).stdout.startswith('SUBMISSION.csv: 12 rows')
