"""Broken files, drawn at random: a command gives its result or one clear line, never a traceback."""
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image

from carvana_unet.cli import predict
from carvana_unet.photos import read_mask
from carvana_unet.studio import studio_photo
from test_commands import save_tiny

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
        try: predict([str(w) for w in words])
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
