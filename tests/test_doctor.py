"carvana-doctor: each fault is made on purpose in a folder of studio photos, and found; what `--fix` writes is sound"
import io, os, shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carvana_unet import doctor as module
from carvana_unet.carvana import pairs
from carvana_unet.doctor import FAULTS, carvana_doctor, check, fix, quick_check
from carvana_unet.photos import read_mask, read_photo
from carvana_unet.studio import write_studio

SIZE = (64, 96)


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    "Two cars with all their views"
    return write_studio(tmp_path_factory.mktemp('clean'), seeds=[1, 2], size=SIZE)


@pytest.fixture
def folder(clean, tmp_path):
    return Path(shutil.copytree(clean, tmp_path/'data'))


def run(*words):
    "Exit status, stdout and stderr of the command"
    out, err, status = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try: carvana_doctor([str(w) for w in words])
        except SystemExit as e: status = e.code
    return status, out.getvalue(), err.getvalue()


def grey(mask): return Image.fromarray(read_mask(mask).astype(np.uint8) * 255)


def replace(mask, im, suffix='.png'):
    "Save `im` in the place of a mask"
    im.save(mask.with_suffix(suffix))
    if mask.suffix != suffix: mask.unlink()


def orient(photo, turn):
    "Have the EXIF of a photo turn it"
    im = Image.open(photo)
    im.load()
    im.getexif()[274] = turn
    im.save(photo, exif=im.getexif(), quality=95)


def exchange(a, b):
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second), b.write_bytes(first)


def classes(mask):
    "Class numbers: two in the place of the car"
    x = read_mask(mask).astype(np.uint8)
    x[SIZE[0] * 5 // 8:] *= 2
    return x


# what is done to a pair, the kind of finding, whether --fix keeps the pair
def outline(mask): return Image.fromarray(mask & ~(np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1))).convert('L')


FAULTY = {
    'cut photo': (lambda p: p.photo.write_bytes(p.photo.read_bytes()[:1500]), 'unreadable', False),
    'empty photo file': (lambda p: p.photo.write_bytes(b''), 'unreadable', False),
    'cut mask': (lambda p: p.mask.write_bytes(p.mask.read_bytes()[:80]), 'unreadable', False),
    'text for a mask': (lambda p: p.mask.write_text('these are words'), 'unreadable', False),
    'no mask': (lambda p: p.mask.unlink(), 'alone', None),
    'no photo': (lambda p: p.photo.unlink(), 'alone', None),
    'photo as TIFF': (lambda p: (Image.open(p.photo).save(p.photo.with_suffix('.tif')), p.photo.unlink()), 'format', True),
    'mask as JPEG': (lambda p: replace(p.mask, grey(p.mask), '.jpg'), 'format', True),
    'mask beside the photo': (lambda p: p.mask.rename(p.photo.parent/p.mask.name), 'place', True),
    'mask twice': (lambda p: grey(p.mask).save(p.mask.with_suffix('.png')), 'twice', True),
    'other name': (lambda p: (p.photo.rename(p.photo.with_name('holiday.jpg')), p.mask.rename(p.mask.with_name('holiday_mask.gif'))), 'name', False),
    'smaller mask': (lambda p: replace(p.mask, grey(p.mask).reduce(2)), 'size', False),
    'quarter of a turn': (lambda p: orient(p.photo, 6), 'turned', True),
    'half a turn': (lambda p: orient(p.photo, 3), 'flipped', False),
    'exchanged': (lambda p: exchange(p.photo, p.mask), 'swapped', True),
    'mask for a photo': (lambda p: grey(p.mask).save(p.photo), 'photo', False),
    'photo for a mask': (lambda p: replace(p.mask, Image.open(p.photo).convert('L')), 'mask', False),
    'classes from 1': (lambda p: replace(p.mask, Image.fromarray(classes(p.mask) + np.uint8(1))), 'numbers', False),
    'coloured classes': (lambda p: replace(p.mask, Image.fromarray(np.eye(3, dtype=np.uint8)[classes(p.mask)] * 255)), 'mask', False),
    'JPEG noise': (lambda p: (grey(p.mask).save(p.mask.parent/'x.jpg', quality=80), replace(p.mask, Image.open(p.mask.parent/'x.jpg').copy()),
                              (p.mask.parent/'x.jpg').unlink()), 'noise', True),
    'inverted': (lambda p: replace(p.mask, grey(p.mask).point(lambda v: 255 - v)), 'inverted', True),
    'empty mask': (lambda p: replace(p.mask, Image.new('L', SIZE[::-1])), 'empty', False),
    'outline': (lambda p: replace(p.mask, outline(read_mask(p.mask))), 'thin', False),
    'dots': (lambda p: replace(p.mask, Image.fromarray(read_mask(p.mask) & (np.indices(SIZE).sum(0) % 2 > 0)).convert('L')), 'thin', False),
    'full mask': (lambda p: replace(p.mask, Image.new('L', SIZE[::-1], 255)), 'full', False)}
ODD = {
    '0 and 1': (lambda p: replace(p.mask, grey(p.mask).point(lambda v: v // 255)), 'dark'),
    'classes': (lambda p: replace(p.mask, Image.fromarray(classes(p.mask))), 'classes'),
    'RGB': (lambda p: replace(p.mask, grey(p.mask).convert('RGB')), 'color'),
    'anti-aliased': (lambda p: replace(p.mask, grey(p.mask).resize((192, 128), Image.Resampling.BILINEAR).reduce(2)), 'soft'),
    'small car': (lambda p: replace(p.mask, Image.fromarray(read_mask(p.mask) & (np.arange(96) < 40)).convert('L')), 'share'),
    'missing view': (lambda p: (p.photo.unlink(), p.mask.unlink()), 'views')}


def test_a_clean_folder_has_no_findings(clean):
    assert check(clean) == quick_check(clean) == []
    assert run(clean)[:2] == (0, '0 faults, 0 remarks\n')


@pytest.mark.parametrize('case', FAULTY)
def test_each_fault_is_found_and_mended_or_left_out(folder, tmp_path, case):
    before = pairs(folder)
    pair = before[5]
    photo, mask = read_photo(pair.photo), read_mask(pair.mask)
    make, kind, kept = FAULTY[case]
    make(pair)
    files = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
    found = [f for f in check(folder) if f.fault]
    assert kind in {f.kind for f in found}
    assert all(pair.name in f.file.name or f.kind in ('name', 'same_photo') for f in found), found
    written, left = fix(folder, tmp_path/'good', check(folder))
    assert (written, left) == {True: (32, 0), False: (31, 1), None: (31, 0)}[kept]
    assert [f for f in check(tmp_path/'good') if f.fault] == []
    if kept:
        again, = [p for p in pairs(tmp_path/'good') if p.name == pair.name]
        assert (read_mask(again.mask) == mask).all()
        assert abs(read_photo(again.photo).astype(int) - photo).mean() < 4  # EXIF was added to a JPEG that was compressed once more
    assert {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()} == files, 'the folder itself was written to'


@pytest.mark.parametrize('case', ODD)
def test_remarks_do_not_stop_anyone(folder, case):
    make, kind = ODD[case]
    make(pairs(folder)[5])
    status, out, _ = run(folder)
    assert status == 0 and out.startswith(f'remark ({kind}): ') and out.endswith('0 faults, 1 remark\n')


def test_photos_without_a_car(folder, tmp_path):
    for p in pairs(folder)[3:5]: replace(p.mask, Image.new('L', SIZE[::-1]))
    status, out, _ = run(folder)
    assert status == 1 and out.count('fault (empty)') == 2 and '--allow-empty' in out
    assert run(folder, '--quick', '--allow-empty')[0] == 0
    status, out, _ = run(folder, '--allow-empty', '--fix', tmp_path/'good')
    assert status == 0 and out.count('remark (no_car)') == 2 and '32 pairs written, 0 pairs left out' in out
    assert sum(not read_mask(p.mask).any() for p in pairs(tmp_path/'good')) == 2


def test_duplicates_also_across_training_and_validation(folder):
    items = pairs(folder)
    one, other = items[0], items[16]
    assert one.car != other.car
    (folder/'valid_cars.txt').write_text(other.car + '\n')
    shutil.copy(other.photo, one.photo)
    shutil.copy(items[3].mask, items[4].mask)
    found = {f.kind: f for f in check(folder)}
    assert found.keys() == {'same_photo', 'same_mask'}
    assert found['same_photo'].file == one.photo and 'of the validation set' in found['same_photo'].what
    assert found['same_mask'].file == items[4].mask


def test_validation_cars_that_are_not_there(folder, tmp_path):
    "Some: a remark. All: a fault, and the mended folder has no list"
    listed, car = folder/'valid_cars.txt', pairs(folder)[0].car
    for cars, kind in [([car], None), ([car, '0' * 12], 'valid'), (['0' * 12], 'no_valid'), ([], 'no_valid')]:
        listed.write_text('\n'.join(cars))
        assert [(f.file, f.kind) for f in check(folder)] == ([(listed, kind)] if kind else [])
    assert fix(folder, tmp_path/'mended', check(folder)) == (32, 0)
    assert check(tmp_path/'mended') == []


def test_photos_of_several_sizes(folder, tmp_path):
    write_studio(folder, seeds=[3], size=(80, 120))
    found = check(folder)
    assert {f.kind for f in found} == {'sizes'} and len(found) == 16


def test_whole_folders_exchanged(folder, tmp_path):
    (folder/'train').rename(folder/'x'), (folder/'train_masks').rename(folder/'train'), (folder/'x').rename(folder/'train_masks')
    found = check(folder)
    assert sum(f.kind == 'swapped' for f in found) == 32
    status, out, _ = run(folder, '--fix', tmp_path/'good')
    assert status == 1 and '32 pairs written, 0 pairs left out' in out
    assert run(tmp_path/'good')[:2] == (0, '0 faults, 0 remarks\n')


def test_the_quick_part_sees_names_and_a_sample(folder):
    items = pairs(folder)
    items[1].mask.unlink()
    for p in items[2:]: replace(p.mask, grey(p.mask).point(lambda v: 255 - v))
    found = quick_check(folder)
    assert {f.kind for f in found} == {'alone', 'inverted'} and 5 < len(found) < 16


def test_the_quick_part_is_quick(clean, tmp_path, monkeypatch):
    "Of 6,000 pairs all names are checked, and a dozen are decoded"
    first = pairs(clean)[0]
    for sub in ('train', 'train_masks'): (tmp_path/sub).mkdir()
    for i in range(6000):
        os.link(first.photo, tmp_path/'train'/f'{i // 16:012x}_{i % 16 + 1:02}.jpg')
        os.link(first.mask, tmp_path/'train_masks'/f'{i // 16:012x}_{i % 16 + 1:02}_mask.gif')
    decoded, examine = [], module.examine
    monkeypatch.setattr(module, 'examine', lambda *args, **options: decoded.append(args) or examine(*args, **options))
    assert quick_check(tmp_path) == [] and len(decoded) == 12


def test_status_and_lines(folder, tmp_path):
    items = pairs(folder)
    for p in items[:14]: p.mask.unlink()
    status, out, err = run(folder)
    assert status == 1 and out.count('fault (alone)') == 10 and '4 more of this kind' in out
    assert run(folder, '--all')[1].count('fault (alone)') == 14
    assert all(str(items[i].photo) in out for i in range(10))
    assert '18/18' in err  # the progress bar
    status, out, err = run(tmp_path/'nowhere')
    assert status == 2 and out == '' and err.count('\n') == 1 and 'nowhere: there is no such folder' in err
    status, out, err = run(items[20].mask)
    assert status == 2 and err.count('\n') == 1 and '.gif: is a file; give a folder' in err
    status, out, err = run(folder, '--fix', folder)
    assert status == 2 and 'name a new folder' in err


def test_every_kind_of_fault_is_tested():
    assert {kind for _, kind, _ in FAULTY.values()} | {'same_photo', 'same_mask', 'no_valid'} == set(FAULTS)
