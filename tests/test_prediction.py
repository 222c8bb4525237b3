"""Any photo, many photos, large photos: what `Predictor` promises beyond the single studio photo of its notebook.

`SOAK=1 pytest tests/test_prediction.py` also runs the long forms: 1,000 photos, and one of 12,000x8,000 pixels."""
import io, json, os, pickle, shutil, signal, subprocess, sys, threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image
from torch import nn

from carvana_unet.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from carvana_unet.photos import PhotoError, read_classes, read_photo
from carvana_unet import Predictor
from carvana_unet.engines import TorchEngine, bytes_per_pixel
from carvana_unet.prediction import PredictionError, prefetched
from carvana_unet.squares import shrink
from carvana_unet.unet import has_bf16
from carvana_unet.studio import studio_photo
from carvana_unet.unet import UNet
from test_commands import assert_faults, call, cache, model, photos, studio, without  # noqa: F401, fixtures, too

soak = pytest.mark.skipif('SOAK' not in os.environ, reason='long; set SOAK=1')


class Dark(nn.Module):
    "Sees a car in what is dark, pixel by pixel: the mask is known, whatever the photo"
    def __init__(self):
        super().__init__()
        self.out = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.out.weight, -10)
        nn.init.zeros_(self.out.bias)

    def forward(self, x): return self.out(x)


class DarkCheckpoint(Checkpoint):
    def net(self): return Dark().eval()


def dark(**options): return Predictor(DarkCheckpoint({}, {}), device='cpu', **options)


def scene(h, w):
    "A white photo with a dark rectangle in its upper left quarter, and the rectangle"
    mask = np.zeros((h, w), bool)
    mask[h // 8:h // 2, w // 8:w // 3] = True
    return np.where(mask[..., None], 20, 235).astype(np.uint8).repeat(3, 2), mask


# any photo

TURNS = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}
KINDS = dict(RGB='.jpg', L='.jpg', CMYK='.jpg', RGBA='.png', LA='.png', P='.png')


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(h=st.integers(16, 260), w=st.integers(16, 260), kind=st.sampled_from(sorted(KINDS)), turn=st.sampled_from(sorted(TURNS)),
       scale=st.sampled_from([1, .5, .25, .3]), squares=st.booleans(), tta=st.booleans())
@example(h=64, w=64, kind='RGB', turn=1, scale=.5, squares=False, tta=False)
@example(h=51, w=255, kind='RGB', turn=6, scale=.5, squares=True, tta=True)
@example(h=255, w=51, kind='CMYK', turn=7, scale=.5, squares=False, tta=True)
def test_the_mask_lies_as_the_photo_is_seen(tmp_path, h, w, kind, turn, scale, squares, tta):
    "Any size, colours and orientation: what a viewer shows and the mask have one size, and fit pixel for pixel but for edges"
    seen, true = scene(h, w)
    im = Image.fromarray(seen).convert(kind) if kind != 'LA' else Image.fromarray(seen).convert('L').convert('LA')
    if TURNS[turn] is not None: im = im.transpose(TURNS[turn])  # as the sensor lay
    exif = Image.Exif()
    exif[0x0112] = turn
    file = tmp_path/f'photo{KINDS[kind]}'
    im.save(file, exif=exif, **(dict(quality=95) if KINDS[kind] == '.jpg' else {}))
    mask = dark(scale=scale, squares=squares, tta=tta).mask(file)
    assert mask.shape == (h, w)
    edge = round(8 / scale)  # pixels along each edge that may differ: shrunk, and JPEG's blocks
    inside = np.zeros_like(true)
    inside[h // 8 + edge:max(h // 2 - edge, 0), w // 8 + edge:max(w // 3 - edge, 0)] = True
    outside = np.ones_like(true)
    outside[max(h // 8 - edge, 0):h // 2 + edge, max(w // 8 - edge, 0):w // 3 + edge] = False
    assert mask[inside].all() and not mask[outside].any()


# large photos

def test_tiles_say_what_the_whole_photo_says():
    "A trained network, a photo of five tiles by three, in full precision"
    torch.manual_seed(0)
    net = UNet(width=4, depth=5)
    ck = Checkpoint(net.state_dict(), net.arch, scale=1.)
    photo = np.random.default_rng(0).integers(0, 255, (1300, 1900, 3), dtype=np.uint8)
    whole, tiles = (Predictor(ck, device='cpu', max_memory=gb) for gb in (4, 1))
    for p in (whole, tiles): p.engine = TorchEngine(ck, 'cpu', torch.float32); p.engine.bytes_per_pixel = 400
    tiles.max_memory = (8 * photo.shape[0] * photo.shape[1] + 400 * 1153**2) / 1e9
    assert whole.tile_side(photo.shape[:2], photo.shape[:2]) is None
    assert tiles.tile_side(photo.shape[:2], photo.shape[:2]) == 1152
    assert np.abs(whole.probability(photo) - tiles.probability(photo)).max() < 1e-4


def test_too_little_memory_is_said_with_what_is_enough():
    p = dark(max_memory=.01)
    with pytest.raises(PredictionError, match=r'4000x3000 does not fit into 0.01 GB; allow (\d\.\d) GB'):
        p.mask(np.zeros((3000, 4000, 3), np.uint8))


# memory: in a process of its own, above what the imports take

MEASURE = '''
import json, resource, sys
import numpy as np
from carvana_unet.prediction import Predictor
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
predictor, start, after = Predictor(device='cpu'), used(), []
for photo, found in predictor.stream(sys.argv[1:]):
    assert found.mask.any(), photo
    after.append(used() - start)
print(json.dumps(after))
'''


def peaks(*files):
    "Peak of resident memory in GB above the imports and the model, after each photo"
    r = subprocess.run([sys.executable, '-c', MEASURE, *map(str, files)], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


@pytest.fixture(scope='module')
def studio_jpeg(tmp_path_factory):
    file = tmp_path_factory.mktemp('jpeg')/'car.jpg'
    Image.fromarray(studio_photo(10_000, 2)[0]).save(file, quality=95)
    return file


def test_memory_does_not_grow_with_the_number_of_photos(studio_jpeg):
    n = 1000 if 'SOAK' in os.environ else 12
    after = peaks(*[studio_jpeg] * n)
    assert len(after) == n and max(after) < 1.5
    assert after[-1] < after[n // 2] + .05


@soak
def test_a_photo_of_96_megapixels_in_the_same_memory(studio_jpeg, tmp_path):
    Image.open(studio_jpeg).resize((12_000, 8_000)).save(tmp_path/'large.jpg', quality=85)
    assert peaks(tmp_path/'large.jpg')[0] < 1.5


# many photos

def test_a_stream_goes_on_after_faults_in_order(photos, tmp_path):
    (tmp_path/'words.jpg').write_text('these are words')
    names = [photos[0], tmp_path/'words.jpg', photos[1], tmp_path/'nowhere.jpg'] * 3
    found = list(dark().stream(names, workers=2))
    assert [photo for photo, _ in found] == names
    assert [isinstance(p, PhotoError) for _, p in found] == [False, True] * 6
    assert all((p.mask == dark().mask(photo)).all() for photo, p in found if not isinstance(p, PhotoError))


def test_a_stream_reads_no_further_than_it_must(photos):
    taken = []
    stream = dark().stream(taken.append(i) or photos[0] for i in range(100))
    next(stream)
    assert len(taken) <= 6
    stream.close()
    assert len(taken) <= 6


def test_what_is_interrupted_stops():
    def interrupted(x): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): list(prefetched(interrupted, [1, 2]))


# what is given as a photo

def kinds(photo, folder):
    "The same photo in every way that it can be given"
    im = Image.fromarray(photo)
    im.save(folder/'car.png')
    data = (folder/'car.png').read_bytes()
    moved = io.BytesIO(data)
    moved.seek(100)
    tensor = torch.tensor(photo).permute(2, 0, 1)
    return dict(path=folder/'car.png', text=str(folder/'car.png'), bytes=data, bytearray=bytearray(data), view=memoryview(data), stream=io.BytesIO(data),
                moved=moved, file=open(folder/'car.png', 'rb'), image=im, array=photo, mirrored=np.ascontiguousarray(photo[:, ::-1])[:, ::-1],
                fortran=np.asfortranarray(photo), rgba=np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]), tensor=tensor,
                floats=tensor / 255, doubles=tensor.double() / 255, grads=(tensor / 255).requires_grad_())


def test_a_photo_may_be_given_in_many_ways(tmp_path):
    photo = studio_photo(1, 3, size=(64, 96))[0]
    p, given = dark(), kinds(photo, tmp_path)
    mask = p.mask(photo)
    cut = p.predict(photo).cutout()
    assert mask.any() and cut.shape == (64, 96, 4) and ((cut[..., 3] > 127) == mask).mean() > .99
    for name, same in given.items():
        assert (p.mask(same) == mask).all(), name
        found = p.predict(same)
        assert (found.cutout() == cut).all() and (found.cutout() == cut).all(), name
        found.save(tmp_path/'out.png')
        assert (np.array(Image.open(tmp_path/'out.png')) == cut).all()
    assert all((found.mask == mask).all() for _, found in p.stream(list(given.values())))
    for name in ('path', 'text', 'bytes', 'bytearray', 'stream', 'file', 'image', 'array', 'tensor'):
        found = list(p.stream(given[name]))
        assert len(found) == 1 and (found[0][1].mask == mask).all(), name
    assert len(list(p.stream(np.stack([photo, photo])))) == 2
    grey = np.array(Image.fromarray(photo).convert('L'))
    for same in (grey, grey[..., None], torch.tensor(grey)[None]): assert (p.mask(same) == p.mask(grey[..., None].repeat(3, 2))).all()


NO_PHOTOS = [None, 3, 1.5, [], ['a.jpg'], {}, object(), io.StringIO('text'), np.zeros((4, 4, 3)), np.zeros((4, 4, 3), np.uint16), np.zeros((4, 4, 3), bool),
             np.zeros((3, 40, 60), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(5, np.uint8),
             np.array(3, np.uint8), np.array(['a']), np.array([None]), torch.zeros(5, 6, 3), torch.zeros(3, 4, 4) + 2, torch.zeros(3, 4, 4) - 1,
             torch.full((3, 4, 4), torch.nan), torch.zeros(1, 3, 4, 4), torch.zeros(4, 4), torch.zeros(3, 4, 4, dtype=torch.int32), torch.zeros(3, 0, 4),
             torch.zeros(2, 4, 4), torch.zeros(3, 4, 4, dtype=torch.complex64), torch.tensor(1.), b'', b'no photo', io.BytesIO(), Path('nowhere.jpg'), 'nowhere.jpg', '']


@pytest.mark.parametrize('i', range(len(NO_PHOTOS)))
def test_what_is_no_photo_gets_one_line(i):
    p, photo = dark(), NO_PHOTOS[i]
    for ask in (p.predict, p.mask, p.probability, p.classes):
        with pytest.raises((TypeError, ValueError)) as e: ask(photo)
        assert '\n' not in str(e.value) and 5 < len(str(e.value)) < 300, e.value
    (_, error), = p.stream([photo])
    assert isinstance(error, (TypeError, ValueError))


def test_a_prediction_is_one_line_and_keeps_no_pixels_of_a_file(photos, tmp_path):
    found = dark().predict(photos[0])
    assert repr(found).count('\n') == 0 and len(repr(found)) < 100 and '240x160' in repr(found)
    assert found.photo == photos[0]
    assert pickle.loads(pickle.dumps(found)).cutout().shape == (160, 240, 4)
    with pytest.raises(PhotoError, match='car.jpg'): found.save(tmp_path/'car.jpg')
    with pytest.raises(PhotoError, match='nowhere'): found.save(tmp_path/'nowhere'/'car.png')
    Image.new('RGB', (50, 40)).save(photos[0])
    with pytest.raises(PredictionError, match='its size has changed'): found.cutout()
    photos[0].unlink()
    with pytest.raises(PhotoError, match='no such file'): found.cutout()


def test_the_limit_of_the_confidence_is_the_models(photos):
    p = dark()
    found = p.predict(photos[0])
    assert found.limit is None and not found.low_confidence and 'low' not in repr(found)
    p.checkpoint.low_confidence = 1.
    assert p.predict(photos[0]).low_confidence and 'low' in repr(p.predict(photos[0]))
    assert Predictor(device='cpu').checkpoint.low_confidence is not None


# threads, processes, interruptions

def small_predictor(**options):
    "A network with a BatchNorm, a ReLU and skips, that says something different of each photo"
    torch.manual_seed(0)
    net = UNet(width=8, depth=3)
    return Predictor(Checkpoint(net.state_dict(), net.arch), device='cpu', **options)


TIGHT = 1.05 * (8 * 200 * 300 + small_predictor().engine.bytes_per_pixel * 100 * 150) / 1e9  # GB: were more counted, it would not be enough


@pytest.mark.parametrize('options', [{}, dict(tta=True, squares=True), dict(max_memory=TIGHT)], ids=['plain', 'squares', 'tight'])
def test_many_threads_give_the_bytes_of_one(options):
    "Their first photos at once, as nothing may be measured when the first comes"
    images = [studio_photo(seed, 2, size=(200, 300))[0] for seed in range(4)] * 2
    with pytest.raises(PredictionError): small_predictor(max_memory=TIGHT / 2).probability(images[0])
    expected = [small_predictor(**options).probability(photo).tobytes() for photo in images[:4]] * 2
    for _ in range(2):
        p = small_predictor(**options)
        cost, start = p.engine.bytes_per_pixel, threading.Barrier(8)
        def work(photo, p=p, start=start):
            start.wait()
            return p.probability(photo).tobytes()
        with ThreadPoolExecutor(8) as pool: assert list(pool.map(work, images)) == expected
        assert p.engine.bytes_per_pixel == cost == small_predictor().engine.bytes_per_pixel


def test_memory_is_counted_by_each_thread_for_itself():
    net = UNet(width=8, depth=3).eval()
    alone = bytes_per_pixel(net)
    with ThreadPoolExecutor(8) as pool: assert set(pool.map(bytes_per_pixel, [net] * 40)) == {alone}
    assert not any(m._forward_hooks for m in net.modules())


START = '''
import multiprocessing, pickle, sys
import numpy as np, torch
from carvana_unet.checkpoints import Checkpoint
from carvana_unet.prediction import Predictor
from carvana_unet.unet import UNet
torch.set_num_threads(2)

def work(job):
    predictor, photo = job
    found = (predictor or mine).predict(photo)
    return found, found.mask.mean(), predictor is not None or torch.get_num_threads()

def make(path):
    global mine
    mine = Predictor(path, device='cpu')

if __name__ == '__main__':
    how, send, path = sys.argv[1:]
    mine = Predictor(path, device='cpu')
    photo = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    for _ in range(3): here = mine.predict(photo)
    if send == 'stream': list(mine.stream([photo] * 3))
    options = dict(initializer=make, initargs=(path,)) if send == 'make' else {}
    with multiprocessing.get_context(how).Pool(2, **options) as pool:
        there = pool.map(work, [(mine if send == 'pickle' else None, photo)] * 4)
    for found, share, _ in there:
        assert np.abs(found.probability - here.probability).max() < .02, how
        assert abs(share - here.mask.mean()) < .02
    print('done')
'''


@pytest.mark.parametrize('how, send', [('fork', 'inherit'), ('fork', 'pickle'), ('fork', 'make'), ('fork', 'stream'), ('spawn', 'pickle'), ('spawn', 'make'),
                                       ('forkserver', 'pickle')])
def test_processes(how, send, tmp_path):
    "Ways to start them, and a Predictor that is inherited, sent or made there; a process that waits forever is ended"
    torch.manual_seed(0)
    net = UNet(width=8, depth=3)
    save_checkpoint(Checkpoint(net.state_dict(), net.arch), tmp_path/'model.pth')
    (tmp_path/'start.py').write_text(START)
    r = subprocess.run([sys.executable, 'start.py', how, send, 'model.pth'], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                       env={k: v for k, v in os.environ.items() if k != 'OMP_NUM_THREADS'})
    assert r.returncode == 0 and r.stdout == 'done\n', r.stderr


class Interrupted(Dark):
    "Ctrl-C comes in the middle of a forward pass"
    def __init__(self, error):
        super().__init__()
        self.error, self.norm, self.autocast = error, nn.BatchNorm2d(3), None  # a BatchNorm first: nothing to fold it into

    def forward(self, x):
        if x.shape[-1] == 64 and x.shape[-2] == 64: return super().forward(self.norm(x))  # the constructor's
        self.autocast = torch.is_autocast_enabled('cpu')
        raise self.error


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError, SystemExit, MemoryError])
def test_an_interrupted_forward_pass_leaves_autocast_as_it_was(error):
    class InterruptedCheckpoint(Checkpoint):
        def net(self): return Interrupted(error).eval()
    p = Predictor(InterruptedCheckpoint({}, {}), device='cpu')
    for before in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=before):
            with pytest.raises(error): p.predict(np.zeros((90, 130, 3), np.uint8))
            assert torch.is_autocast_enabled('cpu') == before
    assert p.engine.net.autocast == has_bf16(torch.device('cpu')) and not torch.is_autocast_enabled('cpu')


def test_ctrl_c_at_any_moment_leaves_autocast_as_it_was():
    "An alarm that raises KeyboardInterrupt, at 60 moments of a prediction"
    def ring(*args): raise KeyboardInterrupt
    p, photo = small_predictor(), studio_photo(1, 2, size=(200, 300))[0]
    before = signal.signal(signal.SIGALRM, ring)
    rung = 0
    try:
        for i in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, .0005 * (i + 1))
                while True: p.predict(photo)
            except KeyboardInterrupt: rung += 1
            assert not torch.is_autocast_enabled('cpu') and not torch.is_inference_mode_enabled(), i
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung == 60
    assert p.mask(photo).shape == (200, 300)


def test_any_error_is_that_photos(photos):
    class Panic(BaseException): pass
    errors = [ZeroDivisionError, RuntimeError, MemoryError, OSError, Panic, SystemExit, AssertionError, StopIteration, RecursionError, GeneratorExit]
    p, read = dark(), Predictor.read
    class Odd(type(p)):
        def read(self, photo):
            if isinstance(photo, type): raise photo('no')
            return read(self, photo)
        def infer(self, small):
            if small.hw == (40, 50): raise errors[4]('in the network')
            return super().infer(small)
    odd = Odd(DarkCheckpoint({}, {}), device='cpu')
    items = [x for e in errors for x in (e, photos[0])] + [np.zeros((40, 50, 3), np.uint8), photos[1]]
    found = list(odd.stream(items))
    assert [item for item, _ in found] == items or len(found) == len(items)
    for item, result in found:
        if item is photos[0] or item is photos[1]: assert result.mask.shape == (160, 240)
        else: assert isinstance(result, Exception)
    assert 'Panic' in str(found[8][1]) and 'Panic' in str(found[-2][1])


# commands

def test_folders_globs_formats_and_what_is_there(photos, model, tmp_path):
    (tmp_path/'cars'/'red').mkdir(parents=True)
    photos[0].rename(tmp_path/'cars'/'front.jpg'), photos[1].rename(tmp_path/'cars'/'red'/'side.jpg')
    words = '-m', model, '-i', 'cars', '-o', 'out', '-f', 'cutout'
    assert call('predict', *words, cwd=tmp_path).returncode == 0
    written = [tmp_path/'out'/'front_OUT.png', tmp_path/'out'/'red'/'side_OUT.png']
    assert [Image.open(p).mode for p in written] == ['RGBA', 'RGBA']
    written[0].unlink()
    before = written[1].stat().st_mtime_ns
    result = call('predict', *words, '--skip-existing', cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.startswith('1 of 2 photos were done before\n')
    assert written[0].exists() and written[1].stat().st_mtime_ns == before
    result = call('predict', '-m', model, '-i', 'cars/**/*.jpg', '--no-save', '--spin', 'turn.html', cwd=tmp_path)
    assert result.returncode == 0 and (tmp_path/'turn.html').read_text().count('data:image/webp') == 2


def test_low_confidence_is_a_mark_or_one_line_in_a_long_run(photos, model, tmp_path):
    ck = load_checkpoint(model)
    save_checkpoint(replace(ck, low_confidence=1.), tmp_path/'strict.pth')
    (tmp_path/'many').mkdir()
    for i in range(12): shutil.copy(photos[i % 2], tmp_path/'many'/f'{i:02}.jpg')
    found = {(m, n): call('predict', '-m', m, '-i', *n, '--no-save', cwd=tmp_path) for m in (model, 'strict.pth') for n in (('front.jpg', 'side.jpg'), ('many',))}
    assert {key: (r.returncode, r.stdout.count('low confidence'), len(r.stdout.splitlines())) for key, r in found.items()} == {
        (model, ('front.jpg', 'side.jpg')): (0, 0, 2), (model, ('many',)): (0, 0, 12),
        ('strict.pth', ('front.jpg', 'side.jpg')): (0, 2, 2), ('strict.pth', ('many',)): (0, 1, 13)}
    assert found['strict.pth', ('many',)].stdout.splitlines()[-1].startswith('12 of 12 masks have low confidence; check ')


def test_backgrounds(photos, model, tmp_path):
    def corner(*words):
        assert call('predict', '-m', model, '-i', photos[0], '-o', 'new.png', *words, cwd=tmp_path).returncode == 0
        return tuple(np.array(Image.open(tmp_path/'new.png'))[0, 0])
    assert corner('--background', '#204060') == (32, 64, 96)
    Image.new('RGB', (9, 9), 'red').save(tmp_path/'red.png')
    assert corner('--background', 'red.png', '--shadow') == (255, 0, 0)
    assert_faults(call('predict', '-m', model, '-i', photos[0], '-b', 'blu', cwd=tmp_path), 'blu: neither', status=2)


def test_the_crf_without_pydensecrf(photos, model, tmp_path):
    result = without('pydensecrf', 'predict', '-m', model, '-i', photos[0], '--crf', cwd=tmp_path)
    assert_faults(result, 'pydensecrf is not installed; pip install')
    assert without('pydensecrf', 'predict', '-m', model, '-i', photos[0], '--no-crf', cwd=tmp_path).returncode == 0
    assert without('pydensecrf', 'predict', '-m', model, '-i', photos[0], cwd=tmp_path).returncode == 0


def test_a_model_of_several_classes(photos, tmp_path):
    torch.manual_seed(0)
    net = UNet(n_classes=4, width=4, depth=2)
    ck = Checkpoint(net.state_dict(), net.arch, classes=['background', 'paint', 'glass', 'wheel'])
    x = torch.tensor(shrink(read_photo(photos[0]), ck.scale)).permute(2, 0, 1)[None] / 255
    x = (x - torch.tensor(ck.mean).view(3, 1, 1)) / torch.tensor(ck.std).view(3, 1, 1)
    with torch.no_grad():  # untrained, but each class wins somewhere
        for _ in range(50): net.train()(x)
        net.out.weight *= 10
        net.out.bias -= net.eval()(x).mean((0, 2, 3))
    save_checkpoint(ck, tmp_path/'parts.pth')
    result = call('predict', '-m', 'parts.pth', '-i', photos[0], '-o', 'parts.png', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    labels = read_classes(tmp_path/'parts.png')
    found = Predictor(tmp_path/'parts.pth', device='cpu').predict(photos[0])
    assert Image.open(tmp_path/'parts.png').mode == 'P' and (labels == found.classes).all()
    assert len(np.unique(labels)) > 2 and ((labels > 0) == found.mask).all()


def test_confidence_is_low_where_there_is_no_car(photos, model, tmp_path):
    Image.new('RGB', (240, 160), 'white').save(tmp_path/'nothing.png')
    p = Predictor(model, device='cpu')
    nothing = p.predict(tmp_path/'nothing.png')
    assert nothing.confidence < p.predict(photos[0]).confidence
    assert replace(nothing, small=np.zeros((1, 80, 120), np.float32)).mask.sum() == 0
