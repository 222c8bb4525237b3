"""Broken files, drawn at random: a command gives its result or one clear line, never a traceback."""
import io, os, random
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image

from carvana_unet.predict_command import carvana_predict
from carvana_unet.carvana import Pair
from carvana_unet.doctor import examine
from carvana_unet.photos import PhotoError, decoders, image_size, open_image, read_classes, read_mask, read_photo, read_reduced
from carvana_unet.studio import studio_photo
from test_commands import save_tiny

pytestmark = pytest.mark.reliability('damaged and odd photos')

fuzz = settings(max_examples=150, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "One photo in several formats, and a model"
    folder = tmp_path_factory.mktemp('faults')
    photo = Image.fromarray(studio_photo(1, 3, size=(64, 96))[0])
    exif = photo.getexif()
    exif[274] = 6  # to be turned, so that the orientation, too, is met broken
    photo.save(folder/'good.jpg', exif=exif)
    photo.save(folder/'progressive.jpg', progressive=True)
    photo.save(folder/'good.png')
    photo.quantize(16).save(folder/'good.gif')
    save_tiny(folder/'model.pth')
    return folder


def run(*words):
    "Exit status and stderr of `predict`"
    err, status = io.StringIO(), 0
    with redirect_stderr(err), redirect_stdout(io.StringIO()):
        try: carvana_predict([str(w) for w in words])
        except SystemExit as e: status = e.code
    return status, err.getvalue()


def mask_or_one_line(status, err, name, mask: Path):
    "The mask was written, or one line names the file"
    if status: assert status == 1 and err.count('\n') == 1 and name in err and len(err) < 400, err
    else: assert read_mask(mask).ndim == 2
    assert mask.exists() == (status == 0)


flip = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7))  # where, as a share of the file; which bit
damage = st.tuples(st.floats(0, 1), st.lists(flip, max_size=4))


def damaged(data, kept, flips):
    "The first part of `data`, with some bits flipped"
    data = bytearray(data[:max(1, round(kept * len(data)))])
    for place, bit in flips: data[int(place * len(data))] ^= 1 << bit
    return bytes(data)


@pytest.mark.parametrize('name', ['good.jpg', 'progressive.jpg', 'good.png', 'good.gif'])
@fuzz
@given(damage=damage)
@example(damage=(1, []))
@example(damage=(.5, []))
def test_a_damaged_photo(folder, name, damage):
    photo, mask = folder/f'broken{Path(name).suffix}', folder/'mask.png'
    photo.write_bytes(damaged((folder/name).read_bytes(), *damage))
    mask.unlink(missing_ok=True)
    mask_or_one_line(*run('-m', folder/'model.pth', '-i', photo, '-o', mask, '--cpu'), photo.name, mask)


@fuzz
@given(damage=damage)
@example(damage=(.5, []))
def test_a_damaged_model(folder, damage):
    model, mask = folder/'broken.pth', folder/'mask.png'
    model.write_bytes(damaged((folder/'model.pth').read_bytes(), *damage))
    mask.unlink(missing_ok=True)
    mask_or_one_line(*run('-m', model, '-i', folder/'good.jpg', '-o', mask, '--cpu'), model.name, mask)


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LA', 'RGBA', 'CMYK', 'I;16', 'F'])
def test_photos_of_every_kind(folder, mode, tmp_path):
    "Grey, palette, alpha, print colours, 16 bit: a mask; what cannot be a photo: one line"
    photo = tmp_path/f'photo.{"tif" if mode in ("CMYK", "F") else "png"}'
    Image.open(folder/'good.jpg').convert('L' if mode in ('I;16', 'LA') else 'RGB').convert(mode).save(photo)
    mask = tmp_path/'mask.png'
    mask_or_one_line(*run('-m', folder/'model.pth', '-i', photo, '-o', mask), photo.name, mask)


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (1, 300), (300, 1), (97, 33), (33, 97), (400, 40)])
@pytest.mark.parametrize('scale', [.01, .5, 1])
def test_photos_of_every_size(folder, size, scale, tmp_path):
    Image.new('RGB', size, 'grey').save(tmp_path/'photo.png')
    status, err = run('-m', folder/'model.pth', '-i', tmp_path/'photo.png', '-o', tmp_path/'mask.png', '-s', scale)
    assert status == 0, err
    assert read_mask(tmp_path/'mask.png').shape == size[::-1]


def spoilt(data, seed):
    "Cut off, or with bytes changed, zeroed, doubled or lost, most of them near the head"
    rng, data = random.Random(seed), bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, run = rng.randrange(min(len(data), 400) if rng.random() < .6 else len(data)), rng.randrange(1, 32)
        kind = rng.randrange(5)
        if kind == 0: data = data[:max(1, len(data) - rng.randrange(len(data) // 4 + 1))]
        elif kind == 1: data[at] = rng.randrange(256)
        elif kind == 2: data[at:at + run] = bytes(len(data[at:at + run]))
        elif kind == 3: data[at:at] = data[at:at + run]
        else: del data[at:at + min(run, len(data) - 1)]
        data = data or bytearray(1)
    return bytes(data)


KINDS = {'jpg': dict(format='JPEG'), 'png': dict(format='PNG'), 'gif': dict(format='GIF'), 'tif': dict(format='TIFF', compression='tiff_lzw'),
         'webp': dict(format='WEBP'), 'bmp': dict(format='BMP'), 'avif': dict(format='AVIF', speed=10)}


@pytest.mark.parametrize('suffix', KINDS)
def test_damaged_files_in_every_reader(suffix, tmp_path, capfd, tried):
    "Each reader gives an array or a `PhotoError`, the doctor its findings, and nothing is printed"
    if KINDS[suffix]['format'] not in decoders(): pytest.skip('not in this Pillow')
    photo, out = Image.fromarray(studio_photo(1, 3, size=(48, 72))[0]), io.BytesIO()
    (photo.quantize(16) if suffix in ('gif', 'bmp') else photo).save(out, **KINDS[suffix])
    photo.save(tmp_path/'good.png')
    file, tally = tmp_path/f'0cdf5b5d0ce1_01.{suffix}', Counter()
    files = 40 * int(os.environ.get('RELIABILITY', 1))
    for seed in range(files):
        file.write_bytes(spoilt(out.getvalue(), seed))
        for read in (read_photo, lambda f: read_reduced(f, 4), read_mask, read_classes, open_image, image_size, lambda f: read_photo(f.read_bytes())):
            try: read(file); tally['read'] += 1
            except PhotoError as e: tally['refused'] += 1; assert '\n' not in str(e) and len(str(e)) < 500
        for pair in (Pair(file, tmp_path/'good.png'), Pair(tmp_path/'good.png', file)): examine(pair); tally['examined'] += 1
    assert tally['read'] + tally['refused'] == 7 * files and tally['examined'] == 2 * files and tally['read'] and tally['refused'], tally
    tried(9 * files)
    assert capfd.readouterr() == ('', '')
