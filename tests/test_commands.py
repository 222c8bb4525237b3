"""The commands as a user runs them: in processes of their own, on files, looking at what is printed and written."""
import os, re, resource, shlex, shutil, signal, subprocess, sys
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from fastcore.xtras import Config
from PIL import Image

from carvana_unet.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from carvana_unet.losses import BCEDice
from carvana_unet.photos import read_mask
from carvana_unet.studio import car_id, studio_photo, write_studio
from carvana_unet.unet import UNet

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
COMMANDS = dict(re.findall(r'carvana-(\w+)=(\S+)', Config(ROOT, 'settings.ini').console_scripts))  # name: module:function
SIZE = (160, 240)


def save_tiny(path, cars=()):
    "A checkpoint of a tiny network that has looked at one studio car for some seconds"
    torch.manual_seed(0)
    net, loss = UNet(width=4, depth=3), BCEDice()
    ck = Checkpoint({}, net.arch, cars=list(cars))
    photos, masks = zip(*[studio_photo(1, view, size=(80, 120)) for view in (1, 5, 9, 13)])
    x = torch.tensor((np.stack(photos) / 255 - ck.mean) / ck.std).float().permute(0, 3, 1, 2)
    opt = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        opt.zero_grad()
        loss(net(x), torch.tensor(np.stack(masks)).float()).backward()
        opt.step()
    ck.weights = net.state_dict()
    return save_checkpoint(ck, path)


def environment(**more):
    "The user's, without a display; one thread, since these networks are tiny"
    hidden = 'DISPLAY', 'WAYLAND_DISPLAY', 'MPLBACKEND'
    return {k: v for k, v in os.environ.items() if k not in hidden} | dict(OMP_NUM_THREADS='1') | more


def call(name, *words, cwd, env=None, **options):
    "Run a command (`predict`: the installed `carvana-predict`; `predict.py`: the script at the top) to its end"
    program = [sys.executable, str(ROOT/name)] if name.endswith('.py') else [str(BIN/f'carvana-{name}')]
    return subprocess.run([*program, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300,
                          env=env or environment(), **options)


def function(name):
    "The function of `carvana-<name>`"
    module, _, function = COMMANDS[name].partition(':')
    return getattr(import_module(module), function)


def without(module, name, *words, cwd):
    "Run a command where `module` is not installed"
    origin, _, function = COMMANDS[name].partition(':')
    code = f'import sys; sys.modules[{module!r}] = None; from {origin} import {function}; {function}(sys.argv[1:])'
    return subprocess.run([sys.executable, '-c', code, *map(str, words)], cwd=cwd, capture_output=True, text=True,
                          timeout=300, env=environment())


def lines(text):
    "The lines of stderr, without those of the progress bar"
    assert '\r' not in text and '%|' not in text, text  # a log gets whole lines
    return [line for line in text.splitlines() if not re.match(r'(.*: )?\d+% \d+/\d+ \[', line)]


def assert_faults(result, *names, status=1):
    "This exit status, no traceback, and one line for each name in their order"
    found = lines(result.stderr)
    assert result.returncode == status, result.stderr
    assert len(found) == len(names), result.stderr
    for line, name in zip(found, names): assert str(name) in line
    assert 'Traceback' not in result.stderr


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    "Decoded photos are not kept in the user's cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='session')
def studio(tmp_path_factory):
    return write_studio(tmp_path_factory.mktemp('studio'), seeds=[1, 2, 3], views=[1, 5, 9, 13], size=SIZE)


@pytest.fixture(scope='session')
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp('model')/'tiny.pth', cars=[car_id(1), car_id(2)])


@pytest.fixture
def photos(studio, tmp_path):
    "Two photos, alone in the folder in which the commands of a test run"
    found = sorted((studio/'train').glob('*.jpg'))[:2]
    return [Path(shutil.copy(p, tmp_path/name)) for p, name in zip(found, ['front.jpg', 'side.jpg'])]


def is_mask(path):
    "A PNG of the photo's size with nothing but 0 and 255 in it"
    values = np.array(Image.open(path))
    return values.shape == SIZE and set(np.unique(values)) <= {0, 255}


# help

@pytest.mark.parametrize('name', COMMANDS)
def test_help_needs_nothing_heavy(name, tmp_path):
    "numpy and Pillow take a tenth of a second; the others take seconds"
    module, _, function = COMMANDS[name].partition(':')
    code = f"""import sys
from {module} import {function}
try: {function}(['-h'])
finally: print([m for m in ('torch', 'fastai', 'onnxruntime', 'scipy', 'matplotlib') if m in sys.modules])"""
    result = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith('usage:') and result.stdout.endswith('[]\n')


@pytest.mark.parametrize('name', ['predict', 'predict.py', 'train', 'train.py'])
def test_help(name, tmp_path): assert call(name, '-h', cwd=tmp_path).stdout.startswith('usage:')


# predict

def test_predict_several(photos, model, tmp_path):
    result = call('predict', '-m', model, '-i', *photos, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ['front.jpg', 'front_OUT.png', 'side.jpg', 'side_OUT.png']
    assert all(is_mask(p.with_name(f'{p.stem}_OUT.png')) for p in photos)
    assert [Path(line.split(':')[0]).name for line in result.stdout.splitlines()] == ['front_OUT.png', 'side_OUT.png']
    assert '2/2' in result.stderr  # the progress bar
    assert lines(result.stderr) == []


def test_predict_through_pipes(photos, model, tmp_path):
    def piped(*words, data=b''):
        return subprocess.run([str(BIN/'carvana-predict'), '-m', str(model), *map(str, words)], input=data, cwd=tmp_path, capture_output=True, timeout=300,
                              env=environment())
    data = photos[0].read_bytes()
    assert call('predict', '-m', model, '-i', photos[0], cwd=tmp_path).returncode == 0
    mask = (tmp_path/'front_OUT.png').read_bytes()
    for words in ['-i', '-', '-o', '-'], ['-i', '-'], ['-i', photos[0], '-o', '-']:
        result = piped(*words, data=data)
        assert (result.returncode, result.stdout) == (0, mask), result.stderr
        assert re.fullmatch(rb'standard output: [\d.]+% car.*\n', result.stderr)
    result = piped('-i', '-', '-o', 'mask.png', data=data)
    assert (result.returncode, result.stderr) == (0, b'') and result.stdout.startswith(b'mask.png: ')
    assert (tmp_path/'mask.png').read_bytes() == mask
    assert piped('-i', '-', '--no-save', data=data).stdout.startswith(b'standard input: ')
    for bad, output in product((b'', b'no photo', data[:100]), ([], ['-o', '-'], ['-o', 'bad.png'])):
        result = piped('-i', '-', *output, data=bad)
        assert (result.returncode, result.stdout, result.stderr.count(b'\n')) == (1, b'', 1), result.stderr
        assert result.stderr.startswith(b'standard input: '), result.stderr
    for words in ['-i', '-', photos[0]], ['-i', *photos, '-o', '-'], ['-i', '-', '-o', '-', 'mask.png']:
        result = piped(*words, data=data)
        assert (result.returncode, result.stdout, result.stderr.count(b'\n')) == (2, b'', 1), result.stderr


def test_predict_script_relative_names_and_model_of_the_working_folder(photos, model, tmp_path):
    shutil.copy(model, tmp_path/'MODEL.pth')
    result = call('predict.py', '--input', 'front.jpg', '--cpu', cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.startswith('front_OUT.png: ')
    assert is_mask(tmp_path/'front_OUT.png')


def test_outputs_with_odd_names(photos, model, tmp_path):
    photo = photos[0].rename(tmp_path/'mein Auto ü.jpg')
    result = call('predict', '-m', model, '-i', photo, photos[1], '-o', 'ä b.png', 'out.jpg', cwd=tmp_path)
    assert result.returncode == 0
    assert is_mask(tmp_path/'ä b.png')
    assert read_mask(tmp_path/'out.jpg').shape == SIZE
    assert len(lines(result.stderr)) == 1  # that JPEG blurs a mask, without the source line that says it


def test_folder_in_folder_out(photos, model, tmp_path):
    (tmp_path/'notes.txt').write_text('not a picture')
    result = call('predict', '-m', model, '-i', tmp_path, cwd=tmp_path)
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 2
    (tmp_path/'masks').mkdir()
    result = call('predict', '-m', model, '-i', tmp_path, '-o', 'masks', cwd=tmp_path)  # the masks there are no photos
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 2
    assert sorted(p.name for p in (tmp_path/'masks').iterdir()) == ['front_OUT.png', 'side_OUT.png']


def test_no_save_and_viz_without_a_display(photos, model, tmp_path):
    "`-i image1.jpg image2.jpg --viz --no-save`, as the original's users were told"
    result = call('predict', '-m', model, '-i', *photos, '--viz', '--no-save', cwd=tmp_path)
    assert result.returncode == 0
    assert len(lines(result.stderr)) == 1 and lines(result.stderr)[0].startswith('--viz: ')
    assert sorted(tmp_path.iterdir()) == photos


SCREEN = """from matplotlib.backend_bases import FigureManagerBase as FigureManager
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas
def show(**options):
    import matplotlib.pyplot as plt
    print('shown:', plt.gcf().get_suptitle(), len(plt.gcf().axes))
    plt.close()
"""


def test_viz_shows_each_photo_and_its_mask(photos, model, tmp_path):
    "A matplotlib backend of our own stands for the screen"
    (tmp_path/'screen.py').write_text(SCREEN)
    env = environment(MPLBACKEND='module://screen', PYTHONPATH=str(tmp_path))
    result = call('predict', '-m', model, '-i', *photos, '--viz', cwd=tmp_path, env=env)
    assert result.returncode == 0 and lines(result.stderr) == []
    assert [line for line in result.stdout.splitlines() if 'shown' in line] == ['shown: front.jpg 2', 'shown: side.jpg 2']
    assert len(list(tmp_path.glob('*_OUT.png'))) == 2


def test_viz_without_matplotlib(photos, model, tmp_path):
    result = without('matplotlib', 'predict', '-m', model, '-i', photos[0], '--viz', cwd=tmp_path)
    assert result.returncode == 0
    assert len(lines(result.stderr)) == 1 and 'matplotlib is not installed' in result.stderr
    assert is_mask(tmp_path/'front_OUT.png')


def test_threshold_and_scale_act(photos, model, tmp_path):
    def mask(*words):
        assert call('predict', '-m', model, '-i', photos[0], '-o', 'mask.png', *words, cwd=tmp_path).returncode == 0
        return read_mask(tmp_path/'mask.png')
    low, middle, high = mask('-t', .1), mask(), mask('-t', .9)
    assert low.sum() > middle.sum() > high.sum()
    assert not (high & ~middle).any() and not (middle & ~low).any()
    assert (mask('-s', 1) != middle).any()


def test_good_photos_among_bad_ones(photos, model, tmp_path):
    "Each fault gets a line of its own, and the good photo is done all the same"
    (tmp_path/'half.jpg').write_bytes(photos[1].read_bytes()[:len(photos[1].read_bytes()) // 2])
    (tmp_path/'words.jpg').write_text('these are words')
    (tmp_path/'nothing.jpg').touch()
    (tmp_path/'folder').mkdir()
    bad = 'folder nowhere.jpg half.jpg words.jpg nothing.jpg'.split()
    result = call('predict', '-m', model, '-i', *bad, 'front.jpg', cwd=tmp_path)
    assert_faults(result, *bad)
    assert [p.name for p in tmp_path.glob('*_OUT.png')] == ['front_OUT.png']
    assert is_mask(tmp_path/'front_OUT.png')


class Trap:
    "Unpickled, it leaves a file behind"
    def __reduce__(self): return os.mkdir, ('trapped',)


def wrong_model(path, kind, model):
    "Write something at `path` that is not a checkpoint of ours"
    if kind == 'text': path.write_text('these are words')
    if kind == 'half': path.write_bytes(model.read_bytes()[:2000])
    if kind == 'trap': torch.save(dict(weights=Trap()), path)
    if kind == 'foreign': torch.save({'inc.conv.0.weight': torch.zeros(64, 3, 3, 3)}, path)
    if kind == 'folder': path.mkdir()


@pytest.mark.parametrize('kind', ['missing', 'text', 'half', 'trap', 'foreign', 'folder'])
def test_wrong_model(kind, photos, model, tmp_path):
    wrong_model(tmp_path/'wrong.pth', kind, model)
    result = call('predict', '-m', 'wrong.pth', '-i', *photos, cwd=tmp_path)
    assert_faults(result, 'wrong.pth')
    assert not (tmp_path/'trapped').exists()
    assert not list(tmp_path.glob('*_OUT.png'))


def test_outputs_that_do_not_fit(photos, model, tmp_path):
    "Refused before anything is predicted, without loading torch"
    before = sorted(tmp_path.iterdir())
    assert_faults(call('predict', '-m', model, '-i', *photos, '-o', 'one.png', cwd=tmp_path), '2 photos but 1 names', status=2)
    assert_faults(call('predict', '-m', model, '-i', *photos, '-o', 'a.png', './a.png', cwd=tmp_path), 'side.jpg', status=2)
    assert_faults(call('predict', '-m', model, '-i', *photos, '-o', 'side.jpg', 'a.png', cwd=tmp_path), 'front.jpg', status=2)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('words', ['-t 50', '-t 0', '-s 0', '-s nan', '-s half', '--nonsense'])
def test_a_command_line_without_sense(words, photos, tmp_path):
    result = call('predict', '-i', photos[0], *words.split(), cwd=tmp_path)
    assert_faults(result, 'carvana-predict: ', status=2)


@pytest.mark.parametrize('words, name', [
    ('-o nowhere/front.png side.png', 'nowhere'), ('-o front.png side.xyz', 'side.xyz'), ('-o front.png side.gif -f cutout', 'side.gif'),
    ('-o front.png side.webp -f probability', 'side.webp'), ('-o front.jpg/masks', 'front.jpg'), ('--spin nowhere/car.html', 'nowhere')])
def test_output_that_cannot_be_written(words, name, photos, model, tmp_path):
    "Reported before anything is predicted, and no folder is made"
    assert_faults(call('predict', '-m', model, '-i', *photos, *words.split(), cwd=tmp_path), name, status=2)
    assert sorted(tmp_path.iterdir()) == photos


@pytest.mark.parametrize('suffix', ['.webp', '.tif', '.bmp', '.gif', '.PNG'])
def test_lossless_formats(suffix, photos, model, tmp_path):
    masks = []
    for name in ('mask.png', f'mask{suffix}'):
        assert call('predict', '-m', model, '-i', photos[0], '-o', name, cwd=tmp_path).returncode == 0
        masks.append(read_mask(tmp_path/name))
    assert (masks[0] == masks[1]).all() and masks[0].any()


def test_no_folder_without_a_mask(photos, model, tmp_path):
    (tmp_path/'words.jpg').write_text('these are words')
    assert_faults(call('predict', '-m', model, '-i', 'nowhere.jpg', 'words.jpg', '-o', 'masks', cwd=tmp_path), 'nowhere.jpg', 'words.jpg')
    assert not (tmp_path/'masks').exists()


def test_a_full_disk_leaves_no_half_mask(photos, model, tmp_path):
    "A limit on the size of files stands for the full disk: the system refuses to write after 32 bytes"
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (32, 32))
    result = call('predict', '-m', model, '-i', *photos, cwd=tmp_path, preexec_fn=full)
    assert_faults(result, 'front_OUT.png', 'side_OUT.png')
    assert sorted(tmp_path.iterdir()) == photos


def test_ctrl_c(photos, model, tmp_path):
    for i in range(300): shutil.copy(photos[0], tmp_path/f'{i:03}.jpg')
    process = subprocess.Popen([str(BIN/'carvana-predict'), '-m', model, '-i', tmp_path], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED='1'),
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # ignored where make runs in the background
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and lines(err) == ['stopped']
    masks = list(tmp_path.glob('*.png'))
    assert 0 < len(masks) < 302 and all(map(is_mask, masks))
    assert not [p for p in tmp_path.iterdir() if p.suffix not in ('.jpg', '.png')]  # no temporary file is left


@pytest.mark.parametrize('streams', ['2>&-', '>&-', '>&- 2>&- <&-', '| head -1', '2>&1 | head -c 1', '2>/dev/full'])
def test_closed_streams(streams, photos, model, tmp_path):
    "The work is done all the same, and the exit status says so"
    words = shlex.join([str(BIN/'carvana-predict'), '-m', str(model), '-i', *map(str, photos)])
    result = subprocess.run(['bash', '-o', 'pipefail', '-c', f'{words} {streams}'], cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert result.returncode == 0 and 'rror' not in result.stderr
    assert all(is_mask(p.with_name(f'{p.stem}_OUT.png')) for p in photos)


PRODUCTS = dict(  # a command that writes something and prints something, and what it writes
    doctor=('data --fix fixed', 'fixed/train'), submit=('data/train --cpu', 'SUBMISSION.csv'), demo=('photo.jpg', 'demo/photo_mask.png'),
    score=('MODEL.pth data --cars cars.txt --cpu --json score.json', 'score.json'),
    train=('data --epochs 1 --batch-size 4 --arch unet --width 4 --depth 3 --scale .5 --device cpu -o new.pth', 'new.pth'))


@pytest.fixture
def workplace(studio, model, tmp_path):
    "What the commands of `PRODUCTS` read"
    shutil.copytree(studio, tmp_path/'data')
    shutil.copy(model, tmp_path/'MODEL.pth')
    shutil.copy(next((studio/'train').iterdir()), tmp_path/'photo.jpg')
    (tmp_path/'cars.txt').write_text(car_id(3))
    return tmp_path


@pytest.mark.parametrize('streams, status', [('>&- 2>&- <&-', 0), ('2>&1 | head -c 1', 0), ('>/dev/full', 1)])
@pytest.mark.parametrize('name', PRODUCTS)
def test_closed_streams_of_every_command(name, streams, status, workplace):
    "The work is done all the same, and the exit status is that of an undisturbed run, but for a full disk behind standard output"
    words, product = PRODUCTS[name]
    command = f"{BIN/f'carvana-{name}'} {words} {streams}"
    result = subprocess.run(['bash', '-o', 'pipefail', '-c', command], cwd=workplace, capture_output=True, text=True, env=environment())
    assert result.returncode == status and lines(result.stderr) == ['standard output: No space left on device'] * status
    assert (workplace/product).exists()


@pytest.mark.parametrize('option', ['--json', '--html'])
def test_a_result_on_a_full_disk(option, workplace):
    "Refused before anything is scored; a disk that fills up meanwhile leaves what was there"
    (workplace/'result').write_text('what was there')
    limit = lambda size: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    score = ['MODEL.pth', 'data', '--cars', 'cars.txt', '--cpu', option]
    assert_faults(call('score', *score, 'result', cwd=workplace, preexec_fn=limit(1000)), 'result: cannot be written', status=2)
    assert_faults(call('score', *score, '/dev/full', cwd=workplace), 'is not a plain file', status=2)
    code = 'import sys; from carvana_unet import commands, score_command; commands.check_room = lambda *a: None; score_command.carvana_score(sys.argv[1:])'
    full = subprocess.run([sys.executable, '-c', code, *score, 'result'], cwd=workplace, capture_output=True, text=True, env=environment(), preexec_fn=limit(1000))
    assert_faults(full, 'result: cannot be written')
    assert (workplace/'result').read_text() == 'what was there'
    assert sorted(p.name for p in workplace.iterdir()) == ['MODEL.pth', 'cars.txt', 'data', 'photo.jpg', 'result']


def test_a_photo_too_large_for_the_memory(workplace):
    "Its line names it and the memory that it needs; the others are predicted, and with that memory the same command finishes"
    Image.new('RGB', (7000, 5000), 'grey').save(workplace/'data/train/large.jpg')
    words = ['data/train', '--cpu', '-s', .05]
    few = call('submit', *words, '--max-memory', .1, cwd=workplace)
    assert_faults(few, 'large.jpg: a photo of 7000x5000 does not fit into 0.1 GB', '1 of 13 photos failed')
    need = re.search(r'allow ([\d.]+) GB', few.stderr)[1]
    enough = call('submit', *words, '--max-memory', need, cwd=workplace)
    assert enough.stdout.startswith('SUBMISSION.csv: 13 rows'), enough.stderr


def test_full_standard_output(photos, model, tmp_path):
    with open('/dev/full', 'w') as full:
        words = [BIN/'carvana-predict', '-m', model, '-i', *photos]
        result = subprocess.run([*map(str, words)], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, env=environment())
    assert_faults(result, 'standard output: No space left')
    assert len(list(tmp_path.glob('*_OUT.png'))) == 2


# train

SMALL = '--epochs 1 --batch-size 4 --arch unet --width 4 --depth 3 --scale .5 --device cpu'.split()


@pytest.fixture(scope='module')
def trained(studio, tmp_path_factory):
    "A network of one epoch on two of the three cars, and what the command said"
    folder = tmp_path_factory.mktemp('trained')
    (folder/'valid.txt').write_text(car_id(3) + '\n')
    return folder, call('train', studio, *SMALL, '--valid', 'valid.txt', '-o', 'new.pth', cwd=folder)


def test_the_printed_command_works(trained):
    folder, result = trained
    assert result.returncode == 0, result.stderr
    words = shlex.split(result.stdout.splitlines()[-1])
    assert words[words.index('--model') + 1] == 'new.pth'
    assert sorted(load_checkpoint(folder/'new.pth').cars) == sorted([car_id(1), car_id(2)])
    assert car_id(3) in words[words.index('--input') + 1]  # an unseen car
    path = os.pathsep.join([str(BIN), os.environ['PATH']])
    used = subprocess.run(result.stdout.splitlines()[-1], shell=True, cwd=folder, capture_output=True, text=True,
                          env=environment(PATH=path))
    assert (used.returncode, used.stderr) == (0, '')
    assert is_mask(folder/'mask.png')


def test_the_same_seed_gives_the_same_weights(trained, studio, tmp_path):
    result = call('train.py', studio, *SMALL, '--valid', trained[0]/'valid.txt', '-o', 'again.pth', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    first, again = [load_checkpoint(p).weights for p in (trained[0]/'new.pth', tmp_path/'again.pth')]
    assert first.keys() == again.keys() and all(torch.equal(first[k], again[k]) for k in first)


def test_two_processes_train_one_network(studio, trained, tmp_path):
    "`accelerate launch` starts them; one line is printed, one model written"
    launch = 'accelerate launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no'.split()
    words = [BIN/launch[0], *launch[1:], BIN/'carvana-train', studio, *SMALL, '--valid', trained[0]/'valid.txt', '-o', 'two.pth']
    run = subprocess.run([*map(str, words)], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count('carvana-predict') == 1
    assert load_checkpoint(tmp_path/'two.pth').cars == load_checkpoint(trained[0]/'new.pth').cars
    assert sorted(p.name for p in tmp_path.iterdir()) == ['two.pth', 'two_curve.png', 'two_worst.png']


def test_wrong_data(studio, tmp_path):
    "Found before fastai is imported, so quickly"
    (tmp_path/'empty').mkdir()
    lacking = Path(shutil.copytree(studio, tmp_path/'lacking'))
    mask = next((lacking/'train_masks').iterdir())
    mask.unlink()
    for folder, name in [('nowhere', 'nowhere'), ('empty', 'empty'), (lacking, mask.stem.removesuffix('_mask'))]:
        assert_faults(call('train', folder, *SMALL, '-o', 'new.pth', cwd=tmp_path), name)
    assert_faults(call('train', studio, *SMALL, '-o', 'absent/new.pth', cwd=tmp_path), 'absent', status=2)
    assert not (tmp_path/'new.pth').exists()


def test_training_without_fastai(studio, tmp_path):
    assert_faults(without('fastai', 'train', studio, *SMALL, cwd=tmp_path), 'fastai is not installed')


def test_training_from_a_wrong_model(studio, tmp_path):
    (tmp_path/'wrong.pth').write_text('these are words')
    assert_faults(call('train', studio, '--device', 'cpu', '-c', 'wrong.pth', '-o', 'new.pth', cwd=tmp_path), 'wrong.pth')


# score and demo

def test_score(studio, model, tmp_path):
    (tmp_path/'cars.txt').write_text(f'{car_id(1)}\n{car_id(3)}\n')
    result = call('score', model, studio, '--cars', 'cars.txt', '--last', 1, cwd=tmp_path)
    assert result.returncode == 0 and lines(result.stderr) == []
    table = dict(line.split('  ', 1) for line in result.stdout.splitlines())
    assert table['photos, cars'].strip() == '4, 1'
    assert 0 <= float(table['mean dice']) <= 1


def test_score_on_cars_of_the_training_is_refused(studio, model, tmp_path):
    result = call('score', model, studio, cwd=tmp_path)
    assert_faults(result, model.name)
    assert '2 of these 3 cars' in result.stderr and result.stdout == ''


def test_score_on_cars_that_are_not_there(studio, model, tmp_path):
    (tmp_path/'cars.txt').write_text('0123456789ab\n')
    assert_faults(call('score', model, studio, '--cars', 'cars.txt', cwd=tmp_path), 'cars.txt: ')
    assert_faults(call('score', model, studio, '--cars', 'absent.txt', cwd=tmp_path), 'absent.txt: ')


def test_demo_with_a_photo(photos, model, tmp_path):
    shutil.copy(model, tmp_path/'MODEL.pth')
    result = call('demo', photos[0], cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, '')
    made = sorted(p.name for p in (tmp_path/'demo').iterdir())
    assert made == ['front_cutout.png', 'front_mask.png', 'front_overlay.jpg']
    assert str(tmp_path/'demo') in result.stdout
    assert_faults(call('demo', 'nowhere.jpg', cwd=tmp_path), 'nowhere.jpg')
