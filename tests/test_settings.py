"""Settings that make no sense: each command stops with status 2 and one line on stderr, before it writes or loses anything.

Most run in this process, which is what the commands do apart from starting Python; one of each command runs as a program."""
import io, os, re, shlex, shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch

from carvana_unet.studio import car_id, write_studio
from carvana_unet.submission import HEADER
from test_commands import call, function, lines, save_tiny

pytestmark = pytest.mark.reliability('wrong settings')

NUMBERS = '0 -1 nan inf -inf 1e400 half 1,5 0x1F 5% ""'.split()    # that no option takes as its value


def each(option, values, rest=''):
    "A command line for each value of an option"
    return [f'{rest} {option}={value}' for value in (shlex.split(values) if isinstance(values, str) else values)]


PREDICT = '-i front.jpg'
TWO = '-i front.jpg side.jpg'
WORDS = dict(
    predict=[
        *each('-t', [*NUMBERS, '1', '1.0001', '50'], PREDICT), *each('-s', [*NUMBERS, '1.01', '2', '1e-300', '1e-9', '.0099'], PREDICT),
        *each('--max-memory', [*NUMBERS, '1e9', '1e-300'], PREDICT),
        *each('-f', 'masks MASK jpg ""', PREDICT), *each('-b', ['nocolour', '"#12"', '"rgb(1,2"', 'nowhere.png', '""'], PREDICT),
        '', '-i', '-o mask.png', '-i ""', f'{PREDICT} -o ""', f'{PREDICT} -m ""', f'{PREDICT} --spin ""', f'{PREDICT} -o', f'{PREDICT} -t',
        f'{PREDICT} --nonsense', f'{PREDICT} --crf --no-crf', f'{PREDICT} -b white -f mask', f'{PREDICT} --shadow -f cutout',
        f'{PREDICT} --no-save -o mask.png', f'{PREDICT} --no-save=yes', f'{PREDICT} -o a.png b.png',
        f'{TWO} -o one.png', f'{TWO} -o a.png b.png c.png', f'{TWO} -o a.png ./a.png', f'{TWO} -o side.jpg a.png', f'{PREDICT} -o front.jpg',
        f'{PREDICT} -o link.jpg', f'{TWO} -o a b', f'{TWO} -o -', f'{PREDICT} -o - mask.png', '-i - front.jpg',
        f'{PREDICT} -o mask.xyz', f'{PREDICT} -o mask.gif -f cutout', f'{PREDICT} -o mask.webp -f probability', f'{PREDICT} -o mask.heic', f'{PREDICT} -o x.state',
        f'{PREDICT} -o front.jpg/mask.png', f'{TWO} -o front.jpg/masks', f'{PREDICT} -o nowhere/mask.png', f'{PREDICT} -o closed/mask.png', f'{TWO} -o closed',
        f'{PREDICT} -o pipe.png', f'{TWO} -o folder.png side_OUT.png', f'{PREDICT} --spin car.gif', f'{PREDICT} --spin car', f'{PREDICT} --spin nowhere/car.html',
        f'{PREDICT} --spin folder', f'{PREDICT} -o car.webp --spin car.webp', f'{PREDICT} -b back.webp -f background --spin back.webp', f'{PREDICT} --spin pipe.webp',
        f'{PREDICT} -f background -b side.jpg -o side.jpg', f'{PREDICT} -o "new\nline/mask.png"', f'{PREDICT} -o {"long" * 80}.png', f'{PREDICT} -f background -b folder', f'{PREDICT} -f background -b words.jpg'],
    train=[
        *each('--epochs', [*NUMBERS, '1e9', '100001', '2.5'], 'data'), *each('--batch-size', [*NUMBERS, '5000', '100000'], 'data'), *each('-l', [*NUMBERS, '11', '1e-30'], 'data'),
        *each('-s', [*NUMBERS, '1e-9', '1.5'], 'data'), *each('--width', [*NUMBERS, '100000', '257', '2.5'], 'data -a unet'),
        *each('--depth', [*NUMBERS, '60', '11'], 'data -a unet'), *each('--crop', ['-1', 'nan', '1e9', '100001', '2.5', '""'], 'data'),
        *each('--subpixel', [*NUMBERS, '9'], 'data'), *each('--boundary', ['-1', 'nan', 'inf', '1e9', 'x'], 'data'), *each('--accumulate', [*NUMBERS, '1e9'], 'data'),
        *each('--seed', ['-1', '1e3', '4294967296', str(10**30), 'x', '1.0'], 'data'), *each('--device', 'gpu cuda:9 tpu ""', 'data'),
        *each('--augment', 'spin FLIP ""', 'data'), *each('-a', 'resnet5 UNet "" ../x vit_b_16 alexnet', 'data --from-scratch'),
        '', 'data --nonsense', 'data --width', '""', 'data -o ""', 'data -o nowhere/new.pth', 'data -o folder', 'data -o pipe.pth', 'data -o closed/new.pth',
        *[f'data -o new{suffix}' for suffix in '.state .STATE .png .jpg .csv .txt .json .html .gz'.split()], 'data -o tiny.pth', 'data -o ./tiny.pth --epochs 7',
        'data -o new.pth -c new.pth', 'data -o logs --tensorboard logs', 'data --tensorboard front.jpg', 'data --tensorboard front.jpg/logs',
        'data --resume -o new.pth', 'data --load', 'data --classes', 'data --classes car car', 'data --classes background', 'data --classes ""', f'data --classes {" ".join(map(str, range(300)))}',
        'data -a unet --subpixel 2', 'data --depth 4', 'data -a unet --width 256 --depth 10', 'data -a unet --width 200 --depth 9',
        'data --from-scratch --batch-size 4096', 'data -a unet --accumulate 50', 'data -a unet --accumulate 2 --batch-size 40',
        'data -a unet --batch-size 1 --crop 32 --depth 5', 'data -a unet --batch-size 1 --crop 4 --depth 2', 'data --from-scratch --batch-size 1 --crop 32',
        'data --valid empty.txt', 'data --valid comments.txt', 'data --valid ""', 'data --valid', 'nolist -a unet',
        'data --backgrounds ""', 'data --lr-find=1', 'data --epochs 1 2 x=3'],
    score=[
        '', 'tiny.pth', 'tiny.pth data surplus', 'tiny.pth data --nonsense', '"" data', 'tiny.pth ""', *each('--folds', [*NUMBERS, '1e9', '1', '40', '2.5'], 'data'),
        *each('--first', [*NUMBERS, '1e9', '400'], 'tiny.pth data'), *each('--last', [*NUMBERS, '1e9', '400'], 'tiny.pth data'), *each('--audit', NUMBERS, 'data --folds 2'),
        'tiny.pth data --first 1 --last 1', 'tiny.pth data --cars c3.txt --unseen', 'tiny.pth data --folds 2', 'tiny.pth data --audit 3', 'tiny.pth data --models folds',
        *[f'data --folds 2 {o}' for o in ('--cars c3.txt', '--unseen', '--first 1', '--last 1', '--models front.jpg', '--models front.jpg/x', '--models ""', '--tta', '--crf')],
        *[f'rows.csv data {o}' for o in ('--tta', '--crf', '--unseen')],
        *[f'tiny.pth data --cars {f}' for f in ('empty.txt', 'comments.txt', '""')], 'tiny.pth data --unseen',
        *[f'tiny.pth data --cars c3.txt {o} {f}' for o in ('--json', '--html') for f in
          ('""', 'folder', 'nowhere/score.x', 'closed/score.x', 'front.jpg/score.x', 'pipe.png', 'tiny.pth', './c3.txt', 'link.pth')],
        'tiny.pth data --cars c3.txt --json same --html ./same', 'rows.csv data --json rows.csv', 'rows.csv truth.csv --json truth.csv', 'rows.csv data --cars empty.txt', 'onecar --folds 2', 'onecar --folds 1'],
    doctor=[
        '', '""', 'data other', 'data --nonsense', 'data --fix', 'data --fix ""', 'data --quick=yes', 'nowhere', 'front.jpg', 'folder', 'data/train', 'pipe.png', 'looped',
        'data --fix data', 'data --fix data/train', 'data --fix front.jpg', 'data --fix front.jpg/x', 'data --fix closed/fixed', 'data --fix full'],
    submit=[
        *each('-t', [*NUMBERS, '1', '50'], 'data/train'), *each('-s', [*NUMBERS, '2', '1e-300'], 'data/train'), *each('--max-memory', [*NUMBERS, '1e9'], 'data/train'),
        '', '""', 'data/train other', 'data/train --nonsense', 'data/train --crf --no-crf', 'data/train -m ""', 'data/train --sample ""', 'data/train --sample',
        *[f'data/train -o {f}' for f in ('""', 'folder', 'nowhere/x.csv', 'closed/x.csv', 'front.jpg/x.csv', 'pipe.csv', 'x.txt', 'x.gz', 'x', 'tiny.pth')],
        'data/train --sample sample.csv -o sample.csv', 'data/train --sample sample.csv -o ./sample.csv', 'data/train -o "new\nline/x.csv"'],
    demo=['a.jpg b.jpg', '""', '--nonsense', '-o', '-o ""', '-o front.jpg', 'front.jpg -o front.jpg/demo', 'front.jpg -o closed', 'front.jpg --tta'],
    download=['one two', '""', '--nonsense', '--test=yes', 'front.jpg', 'front.jpg/data', 'closed/data'])
CASES = [(name, words) for name, some in WORDS.items() for words in some]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "Two photos, a model, data, lists and whatever an output must not be; everything else lies elsewhere"
    place, home = tmp_path_factory.mktemp('place'), tmp_path_factory.mktemp('home')
    write_studio(place/'data', seeds=[1, 2, 3], views=[2, 7, 12], size=(64, 96))
    first, second = sorted((place/'data'/'train').iterdir())[:2]
    for photo, name in (first, 'front.jpg'), (second, 'side.jpg'): shutil.copy(photo, place/name)
    shutil.copytree(place/'data', place/'nolist')
    (place/'nolist'/'valid_cars.txt').write_text('# none\n')
    write_studio(place/'onecar', seeds=[1], views=[2, 7], size=(64, 96))
    save_tiny(place/'tiny.pth', cars=[car_id(1), car_id(2)])
    (place/'link.jpg').symlink_to('front.jpg')
    (place/'link.pth').symlink_to('tiny.pth')
    (place/'looped').symlink_to('looped')
    for name in 'folder', 'closed', 'folder.png', 'full': (place/name).mkdir()
    shutil.copy(first, place/'full')
    for name in 'pipe.png', 'pipe.pth', 'pipe.csv', 'pipe.webp': os.mkfifo(place/name)
    shutil.copy(first, place/'back.webp')
    texts = {'empty.txt': '', 'comments.txt': '# no car\n\n', 'c3.txt': f'{car_id(3)}\n', 'words.jpg': 'these are words',
             'sample.csv': HEADER + ''.join(f'{p.name},1 1\n' for p in sorted((place/'data'/'train').iterdir()))}
    for name, text in texts.items(): (place/name).write_text(text)
    for name in 'rows.csv', 'truth.csv': shutil.copy(place/'sample.csv', place/name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv('XDG_CACHE_HOME', str(home))
        yield place
    (place/'closed').chmod(0o755)


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    "Nothing can be made in the folder `closed`, for root as well, who may write where permissions forbid it"
    import tempfile
    make = tempfile.TemporaryFile
    def refused(*args, dir=None, **options):
        if dir is not None and Path(dir).name == 'closed': raise PermissionError(13, 'Permission denied', str(dir))
        return make(*args, dir=dir, **options)
    monkeypatch.setattr(tempfile, 'TemporaryFile', refused)


def contents(folder):
    "Every file of a folder with what tells whether it was written"
    stats = {p: p.lstat() for p in sorted(folder.rglob('*'))}
    return {str(p): (s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns) for p, s in stats.items()}


def run(name, words):
    "Exit status and stderr of a command in this process"
    err, status = io.StringIO(), 0
    with redirect_stderr(err), redirect_stdout(io.StringIO()):
        try: function(name)(shlex.split(words))
        except SystemExit as e: status = e.code
    return status, err.getvalue()


def test_there_are_enough(): assert len(CASES) > 300 and len(set(CASES)) == len(CASES)


@pytest.mark.parametrize('name, words', CASES, ids=lambda x: re.sub(r'\s+', ' ', x)[:60])
def test_a_wrong_setting(name, words, place):
    before = contents(place)
    status, err = run(name, words)
    assert status == 2 and len(lines(err)) == 1 and err.endswith('\n') and len(err) < 500, (status, err)
    assert contents(place) == before


@pytest.mark.parametrize('name', WORDS)
def test_a_wrong_setting_of_a_program(name, place):
    "The same in a process of its own"
    before = contents(place)
    for words in WORDS[name][::len(WORDS[name]) // 3][:2]:
        ended = call(name, *shlex.split(words), cwd=place)
        assert ended.returncode == 2 and ended.stderr.count('\n') == 1 and 'Traceback' not in ended.stderr, (words, ended.stderr)
    assert contents(place) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there(place):
    status, err = run('train', 'data --device cuda')
    assert status == 2 and err == '--device cuda: PyTorch finds no GPU here; leave --device out\n'
