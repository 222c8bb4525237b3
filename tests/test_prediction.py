"""Any photo, many photos, large photos: what `Predictor` promises beyond the single studio photo of its notebook.

`SOAK=1 pytest tests/test_prediction.py` also runs the long forms: 1,000 photos, and one of 12,000x8,000 pixels."""
import json, os, subprocess, sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image
from torch import nn

from carvana_unet.checkpoints import Checkpoint, save_checkpoint
from carvana_unet.photos import PhotoError, read_classes, read_photo
from carvana_unet.prediction import Predictor, PredictionError, overlapped, shrink
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
    for p in (whole, tiles): p.net, p.dtype, p.cost = ck.net(), torch.float32, 400
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
    from carvana_unet.studio import studio_photo
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
    with pytest.raises(KeyboardInterrupt): list(overlapped(interrupted, [1, 2]))


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


def test_backgrounds(photos, model, tmp_path):
    def corner(*words):
        assert call('predict', '-m', model, '-i', photos[0], '-o', 'new.png', *words, cwd=tmp_path).returncode == 0
        return tuple(np.array(Image.open(tmp_path/'new.png'))[0, 0])
    assert corner('--background', '#204060') == (32, 64, 96)
    Image.new('RGB', (9, 9), 'red').save(tmp_path/'red.png')
    assert corner('--background', 'red.png', '--shadow') == (255, 0, 0)
    assert_faults(call('predict', '-m', model, '-i', photos[0], '-b', 'blu', cwd=tmp_path), 'blu: neither')


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


def test_trust_is_low_where_there_is_no_car(photos, model, tmp_path):
    Image.new('RGB', (240, 160), 'white').save(tmp_path/'nothing.png')
    p = Predictor(model, device='cpu')
    nothing = p.predict(tmp_path/'nothing.png')
    assert nothing.trust < p.predict(photos[0]).trust
    assert replace(nothing, small=torch.zeros(1, 80, 120)).mask.sum() == 0
