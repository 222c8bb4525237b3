"Strangers' files: colour profiles, PostScript, pipes, links, junk beside photos, lists from Windows. The right value, or one line that names the file."
import io, os, shutil, socket, struct, tempfile, warnings, zlib
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageCms, PngImagePlugin

from carvana_unet import photos
from carvana_unet.carvana import CarvanaError, pairs, read_cars
from carvana_unet.doctor import carvana_doctor, check
from carvana_unet.predict_command import carvana_predict, expand
from carvana_unet.photos import PhotoError, decoders, image_size, list_photos, open_image, read_classes, read_mask, read_photo, read_reduced
from carvana_unet.scoring import score_submission, true_masks
from carvana_unet.studio import studio_photo, write_studio
from carvana_unet.submission import SubmissionError, encode, expected_names, read_rows
from test_commands import save_tiny

pytestmark = pytest.mark.reliability('files of strangers: profiles, pipes, links, junk, lists')

PHOTO, MASK = studio_photo(1, 3, size=(64, 96))
RAW = Image.fromarray(PHOTO)
VIVID = Image.merge('HSV', [Image.linear_gradient('L').rotate(90), Image.linear_gradient('L'), Image.new('L', (256, 256), 230)]).convert('RGB')
needs_pipes = pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='this system has no named pipes')


@pytest.fixture(scope='module')
def model(tmp_path_factory): return save_tiny(tmp_path_factory.mktemp('model')/'model.pth')


@pytest.fixture(scope='module')
def studio(tmp_path_factory): return write_studio(tmp_path_factory.mktemp('studio'), seeds=[1, 2], size=(64, 96))


def run(command, *words):
    "Exit status, lines of stdout, lines of stderr"
    out, err, status = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try: command([str(w) for w in words])
        except SystemExit as e: status = e.code or 0
    return status, out.getvalue().splitlines(), [x for part in err.getvalue().split('\n') if (x := part.split('\r')[-1]) and 'photo/s' not in x and '?photo' not in x]


# Colour profiles

def s15(*values): return b''.join(struct.pack('>i', round(v * 65536)) for v in values)
def xyz(*values): return b'XYZ \0\0\0\0' + s15(*values)
def curve(gamma): return b'curv\0\0\0\0' + struct.pack('>IH', 1, round(gamma * 256))


def icc(space, pcs='XYZ ', kind='mntr', **tags):
    "An ICC profile of version 2"
    at, table, data = 132 + 12 * len(tags), struct.pack('>I', len(tags)), b''
    for name, tag in tags.items():
        table += name.encode() + struct.pack('>II', at + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    head = struct.pack('>I4xI', at + len(data), 0x02400000) + f'{kind}{space}{pcs}'.encode() + bytes(12) + b'acsp' + bytes(28) + s15(.9642, 1, .8249)
    return head + bytes(128 - len(head)) + table + data


def rgb_profile(red, green, blue, gamma):
    return icc('RGB ', wtpt=xyz(.9642, 1, .8249), rXYZ=xyz(*red), gXYZ=xyz(*green), bXYZ=xyz(*blue), rTRC=curve(gamma), gTRC=curve(gamma), bTRC=curve(gamma))


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
WIDE = {
    'Adobe RGB': rgb_profile((.60974, .31111, .01947), (.20528, .62567, .06087), (.14919, .06322, .74457), 2.2),
    'ProPhoto': rgb_profile((.79767, .28804, 0), (.13519, .71188, 0), (.03134, .00009, .82491), 1.8),
    'Display P3': rgb_profile((.51512, .24120, -.00105), (.29198, .69225, .04189), (.15710, .06657, .78407), 2.2)}


def stored_in(profile, im=RAW):
    "The same colours, as the numbers that a profile has for them"
    return ImageCms.profileToProfile(im, ImageCms.createProfile('sRGB'), ImageCms.ImageCmsProfile(io.BytesIO(profile)), 1, 'RGB')


def off(a, b): return float(abs(np.asarray(a, float) - np.asarray(b, float)).mean())


@pytest.mark.parametrize('suffix', 'jpg png tif webp avif'.split())
@pytest.mark.parametrize('name', WIDE)
def test_a_profile_is_converted(name, suffix, tmp_path):
    if suffix == 'avif' and 'AVIF' not in decoders(): pytest.skip('Pillow has no AVIF here')
    options = dict(jpg=dict(quality=98, subsampling=0), webp=dict(lossless=True), avif=dict(quality=98, subsampling='4:4:4')).get(suffix, {})
    im = stored_in(WIDE[name], VIVID)
    im.save(tmp_path/f'photo.{suffix}', icc_profile=WIDE[name], **options)
    assert off(im, VIVID) > 2, 'the numbers must differ, or this test shows nothing'
    assert off(read_photo(tmp_path/f'photo.{suffix}'), VIVID) < 2
    assert off(read_photo(Image.open(tmp_path/f'photo.{suffix}')), VIVID) < 2


@pytest.mark.parametrize('reduce', [2, 4, 8])
def test_a_jpeg_with_a_profile_is_still_decoded_small(reduce, tmp_path, monkeypatch):
    large = RAW.resize((768, 512))
    stored_in(WIDE['ProPhoto'], large).save(tmp_path/'photo.jpg', quality=98, subsampling=0, icc_profile=WIDE['ProPhoto'])
    sizes, convert = [], photos._srgb
    monkeypatch.setattr(photos, '_srgb', lambda im: (sizes.append(im.size), convert(im))[1])
    small, hw = read_reduced(tmp_path/'photo.jpg', reduce)
    assert hw == (512, 768) and sizes == [(768 // reduce, 512 // reduce)] and off(small, large.reduce(reduce)) < 2


def test_an_srgb_or_broken_profile_changes_nothing(tmp_path):
    wide = WIDE['ProPhoto']
    for profile in (None, SRGB, b'', b'words', wide[:140], wide[:-40], b'\0' * len(wide), wide.replace(b'RGB ', b'????'), os.urandom(300)):
        RAW.save(tmp_path/'photo.png', icc_profile=profile)
        assert (read_photo(tmp_path/'photo.png') == PHOTO).all(), profile
    assert photos._to_srgb(SRGB) is None


def test_profiles_of_grey_palette_and_transparent_photos(tmp_path):
    grey = RAW.convert('L')
    linear = grey.point([round(255 * (v / 255 / 12.92 if v < 10.3 else ((v / 255 + .055) / 1.055) ** 2.4)) for v in range(256)])
    linear.save(tmp_path/'grey.png', icc_profile=icc('GRAY', wtpt=xyz(.9642, 1, .8249), kTRC=curve(1)))
    assert off(linear, grey) > 20 and off(read_photo(tmp_path/'grey.png')[..., 0], grey) < 3
    few = RAW.quantize(16)
    few.save(tmp_path/'few.png', icc_profile=WIDE['ProPhoto'])
    few.convert('RGB').save(tmp_path/'same.png', icc_profile=WIDE['ProPhoto'])
    assert (read_photo(tmp_path/'few.png') == read_photo(tmp_path/'same.png')).all()
    cut = stored_in(WIDE['ProPhoto'])
    cut.putalpha(Image.fromarray(MASK))
    cut.save(tmp_path/'cut.png', icc_profile=WIDE['ProPhoto'])
    assert off(read_photo(tmp_path/'cut.png'), np.where(MASK[..., None], PHOTO, 255)) < 1.5
    RAW.save(tmp_path/'wrong.png', icc_profile=icc('GRAY', wtpt=xyz(.9642, 1, .8249), kTRC=curve(1)))
    assert (read_photo(tmp_path/'wrong.png') == PHOTO).all(), 'a grey profile says nothing about colours'


@pytest.mark.parametrize('suffix', ['tif', 'jpg'])
def test_a_profile_of_print_colours(suffix, tmp_path):
    "A press whose first ink is red"
    lab = lambda c, m, y, k: (0, 128, 128) if k else (255, 128, 128) if not c + m + y else (136, 208, 195) if not m + y else (128, 128, 128)
    nodes = bytes(v for i in range(16) for v in lab(i >> 3 & 1, i >> 2 & 1, i >> 1 & 1, i & 1))
    ramp = bytes(range(256))
    table = b'mft1\0\0\0\0\4\3\2\0' + s15(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + nodes + ramp * 3
    profile = icc('CMYK', 'Lab ', 'prtr', wtpt=xyz(.9642, 1, .8249), A2B0=table)
    for ink, seen in [((255, 0, 0, 0), (255, 0, 0)), ((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))]:
        Image.new('CMYK', (32, 32), ink).save(tmp_path/f'ink.{suffix}', icc_profile=profile)
        assert abs(read_photo(tmp_path/f'ink.{suffix}').astype(int) - seen).max() < 12, (ink, seen)


def test_cut_outs_backgrounds_and_overlays_have_the_right_colours(model, tmp_path):
    RAW.save(tmp_path/'plain.png')
    stored_in(WIDE['ProPhoto']).save(tmp_path/'wide.png', icc_profile=WIDE['ProPhoto'])
    for style, background in [('cutout', []), ('overlay', []), ('background', ['-b', tmp_path/'wide.png'])]:
        made = [tmp_path/f'{name}_{style}.png' for name in ('plain', 'wide')]
        assert run(carvana_predict, '-m', model, '-i', tmp_path/'plain.png', tmp_path/'wide.png', '-o', *made, '-f', style, *background, '--cpu')[0] == 0
        a, b = (np.asarray(Image.open(p), int) for p in made)
        if style == 'cutout': a, b = (x[(np.minimum(a[..., 3], b[..., 3]) == 255)] for x in (a, b))
        assert off(a, b) < 2, style
    whole = np.asarray(Image.open(tmp_path/'wide_background.png'))  # its own photo behind the car
    assert off(whole, PHOTO) < 3


# Nothing is run

POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%Creator: nobody\n%%EndComments\n(x) print\nshowpage\n%%EOF\n'
FOREIGN = {
    'PostScript': POSTSCRIPT, 'EPS with a preview': struct.pack('<IIIIIIIH', 0xC6D3D0C5, 30, len(POSTSCRIPT), 0, 0, 0, 0, 0xFFFF) + POSTSCRIPT,
    'WMF': b'\xd7\xcd\xc6\x9a\0\0\0\0\0\0\x20\0\x20\0\x60\0' + bytes(26), 'EMF': b'\1\0\0\0' + bytes(36) + b' EMF' + bytes(60),
    'PDF': b'%PDF-1.4\n%%EOF\n', 'SVG': b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'script': b'#!/bin/sh\ntouch run\n'}


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    "A program `gs` on the PATH that leaves a trace"
    (there := tmp_path/'bin').mkdir()
    for name in ('gs', 'gswin32c', 'djpeg', 'ppmtogif', 'inkscape', 'convert'):
        (there/name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{tmp_path}/trace"\nexit 0\n')
        (there/name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{there}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setattr(EpsImagePlugin, 'gs_binary', None)
    return tmp_path/'trace'


@pytest.mark.parametrize('kind', FOREIGN)
def test_no_program_is_run(kind, ghostscript, model, studio, tmp_path):
    for suffix in ('jpg', 'png', 'gif', 'tif', 'eps'):
        file = tmp_path/f'file.{suffix}'
        file.write_bytes(FOREIGN[kind])
        for read in (read_photo, read_mask, read_classes, open_image, image_size):
            with pytest.raises(PhotoError, match=file.name): read(file)
        with pytest.raises(PhotoError): read_photo(file.read_bytes())
    (tmp_path/'file.jpg').replace(tmp_path/'car.jpg')
    status, _, err = run(carvana_predict, '-m', model, '-i', tmp_path/'car.jpg', '--cpu')
    assert status == 1 and len(err) == 1 and 'car.jpg: is not an image that can be read' in err[0]
    data = Path(shutil.copytree(studio, tmp_path/'data'))
    for file in (pairs(data)[0].photo, pairs(data)[1].mask): file.write_bytes(FOREIGN[kind])
    assert [f.kind for f in check(data) if f.fault] == ['unreadable'] * 2
    assert not ghostscript.exists(), ghostscript.read_text()


def test_a_postscript_file_that_pil_has_opened_is_not_run(ghostscript, tmp_path):
    (tmp_path/'file.jpg').write_bytes(POSTSCRIPT)
    with pytest.raises(PhotoError, match='is a drawing'): read_photo(Image.open(tmp_path/'file.jpg'))
    assert not ghostscript.exists()
    with pytest.raises(Exception): Image.open(tmp_path/'file.jpg').load()   # noqa: B017
    assert ghostscript.exists(), 'Pillow itself calls gs, or these tests show nothing'


# Regular files

@contextmanager
def nobody():
    "A user who may not read everything"
    root = os.geteuid() == 0
    if root: os.seteuid(65534)
    try: yield
    finally:
        if root: os.seteuid(0)


@pytest.fixture
def shared():
    "A folder that another user may open"
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for p in folder.rglob('*'):
        if p.is_dir(): p.chmod(0o755)
    shutil.rmtree(folder)


@needs_pipes
def test_what_is_no_file_gets_a_line_and_the_rest_is_done(model, tmp_path):
    folder = tmp_path/'photos'
    (folder/'folder.jpg').mkdir(parents=True)
    for name in ('a.jpg', 'z.jpg'): RAW.save(folder/name)
    os.mkfifo(folder/'pipe.jpg')
    (folder/'loop.jpg').symlink_to('loop.jpg'); (folder/'dead.jpg').symlink_to('nowhere.jpg'); (folder/'device.jpg').symlink_to('/dev/zero')
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(folder)    # the path of a socket has to be short
        try: s.bind('socket.jpg')
        finally: os.chdir(here)
        bad = {'folder.jpg': 'is a folder', 'pipe.jpg': 'is a pipe, socket or device', 'socket.jpg': 'is a pipe, socket or device',
               'device.jpg': 'is a pipe, socket or device', 'loop.jpg': 'is a link that leads to itself', 'dead.jpg': 'there is no such file'}
        for given in ([folder], sorted(folder.iterdir()), [folder/'*.jpg']):
            if given[0] != folder: given = [p for p in given if p.name != 'folder.jpg']     # named itself, it is a folder to be searched
            for old in folder.glob('*_OUT.png'): old.unlink()
            status, _, err = run(carvana_predict, '-m', model, '-i', *given, '--cpu')
            assert status == 1 and sorted(p.name for p in folder.glob('*_OUT.png')) == ['a_OUT.png', 'z_OUT.png']
            assert len(err) == len(bad) - (given[0] != folder and '*' not in given[0].name), err
            for line in err: assert bad[line.partition(':')[0].rpartition('/')[2]] in line
        for name, what in bad.items():
            for read in (read_photo, read_mask, read_classes, open_image, image_size):
                with pytest.raises(PhotoError, match=what): read(folder/name)


def test_what_may_not_be_read_gets_a_line(shared):
    for name in ('good.jpg', 'secret.jpg', 'open/good.jpg', 'closed/hidden.jpg'):
        (shared/name).parent.mkdir(exist_ok=True)
        RAW.save(shared/name)
    (shared/'secret.jpg').chmod(0); (shared/'closed').chmod(0)
    with nobody():
        found, faults = expand([shared])
        assert [p.name for _, p in found] == ['good.jpg', 'good.jpg', 'secret.jpg']
        assert faults == [f'{shared}/closed: you may not read it; change its permissions']
        assert expand([shared/'*'/'*.jpg']) == ([(shared/'open/good.jpg', Path('open/good.jpg'))], faults)
        assert expand([shared/'closed'/'*.jpg'])[1] == faults
        assert expand([shared/'closed'])[1] == faults
        with pytest.raises(PhotoError, match='secret.jpg: you may not read it; change its permissions'): read_photo(shared/'secret.jpg')
        with pytest.raises(PhotoError, match='hidden.jpg: you may not read it'): read_photo(shared/'closed'/'hidden.jpg')
        with pytest.raises(PhotoError, match='closed: you may not read it'): expected_names(shared/'closed')
        with pytest.raises(PhotoError, match='closed: you may not read it'): list_photos(shared/'closed')
        assert (read_photo(shared/'good.jpg') == read_photo(shared/'open'/'good.jpg')).all()


def test_the_rest_of_a_folder_is_predicted_beside_a_closed_one(shared, model):
    model = shutil.copy(model, shared/'model.pth')
    for name in ('in/good.jpg', 'in/secret.jpg', 'in/closed/hidden.jpg'):
        (shared/name).parent.mkdir(parents=True, exist_ok=True)
        RAW.save(shared/name)
    assert run(carvana_predict, '-m', model, '-i', shared/'in', '-o', shared/'first', '--cpu')[0] == 0   # imports what is needed, while it may be read
    (shared/'in'/'secret.jpg').chmod(0); (shared/'in'/'closed').chmod(0); (shared/'out').mkdir(); (shared/'out').chmod(0o777)
    with nobody(): status, _, err = run(carvana_predict, '-m', model, '-i', shared/'in', '-o', shared/'out', '--cpu')
    assert status == 1 and [p.name for p in (shared/'out').rglob('*.png')] == ['good_OUT.png']
    assert len(err) == 2 and {line.partition(':')[0].rpartition('/')[2] for line in err} == {'closed', 'secret.jpg'}


@needs_pipes
def test_submission_and_doctor_name_what_is_no_file(studio, tmp_path):
    data = Path(shutil.copytree(studio, tmp_path/'data'))
    first, second, third = (p.photo for p in pairs(data)[:3])
    for file in (first, second, third): file.unlink()
    os.mkfifo(first); second.symlink_to(second.name); third.mkdir()
    assert sorted((f.kind, f.file) for f in check(data) if f.fault) == [('unreadable', p) for p in (first, second, third)]
    status, out, _ = run(carvana_doctor, data)
    assert status == 1 and sum(first.name in line or second.name in line or third.name in line for line in out) == 3
    assert {first.name, second.name, third.name} <= set(expected_names(data/'train'))


# What lies beside photos, and names

JUNK = ['._{}', '.{}', '@eaDir/{}', '__MACOSX/._{}', '__MACOSX/{}', '#recycle/{}', 'Thumbs.db', '.DS_Store', 'desktop.ini', '.trash/{}']


def test_junk_is_passed_over_everywhere_alike(studio, tmp_path, model):
    data = Path(shutil.copytree(studio, tmp_path/'data'))
    there = pairs(data)
    for part in ('train', 'train_masks'):
        name = (there[0].photo if part == 'train' else there[0].mask).name
        for junk in JUNK:
            (place := data/part/junk.format(name)).parent.mkdir(exist_ok=True)
            place.write_bytes(b'\0\5\x16\7 no image')
    assert pairs(data) == there and check(data) == []
    assert expected_names(data/'train') == [p.photo.name for p in there]
    assert sorted(true_masks(data)) == [p.name for p in there]
    assert [p for p, _ in expand([data/'train'])[0]] == [p.photo for p in there]
    assert [p for p, _ in expand([data/'train'/'*'])[0]] == [p for p, _ in expand([data/'train'/'**'/'*'])[0]] == [p.photo for p in there]
    assert [p for p, _ in expand(sorted((data/'train').iterdir()))[0]] == [p.photo for p in there]     # as the shell writes it


@pytest.mark.parametrize('name', ['car[1].jpg', 'car*.jpg', 'car?.jpg', 'a [b]/car.jpg', '[ab]/[c].jpg', '**/car.jpg'])
def test_a_name_that_exists_is_no_pattern(name, tmp_path):
    (tmp_path/name).parent.mkdir(exist_ok=True)
    RAW.save(tmp_path/name, 'JPEG'); RAW.save(tmp_path/'car1.jpg')
    assert [p for p, _ in expand([tmp_path/name])[0]] == [tmp_path/name]
    assert [p for p, _ in expand([(tmp_path/name).parent/'*'])[0]] == sorted({tmp_path/name} | ({tmp_path/'car1.jpg'} if '/' not in name else set()))


# Lists and tables

LISTS = {'plain': '{a}\n{b}\n', 'windows': '{a}\r\n{b}\r\n\r\n\r\n', 'mark': '\ufeff{a}\n{b}', 'upper case': '{A}\n{B}\n',
         'comments': '# red cars\n{a}  # a car\n\n  # none\n{b}\n', 'commas': '{a}, {b}\n', 'quotes': '"{a}"\n"{b}"\n', 'all of it': '\ufeff# x\r\n\r\n{A}\t\r\n{b} # y\r\n\r\n'}


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
@pytest.mark.parametrize('kind', LISTS)
def test_lists_of_cars(kind, encoding, tmp_path):
    a, b = 'abcdef012345', '0cdf5b5d0ce1'
    if encoding == 'utf-16' and '\ufeff' in LISTS[kind]: pytest.skip('it has its own mark')
    (tmp_path/'cars.txt').write_bytes(LISTS[kind].format(a=a, b=b, A=a.upper(), B=b.upper()).encode(encoding))
    assert read_cars(tmp_path/'cars.txt') == [a, b]


@pytest.mark.parametrize('data', [b'\xff\xfea', b'\x80\x81', b'GIF89a', b'abcdef01234\n', b'abcdef012345_01.jpg\n', b'train/abcdef012345\n', b'abcdef012345\0\n', os.urandom(64) + b'\xff'])
def test_what_is_no_list_gets_one_line(data, tmp_path):
    (tmp_path/'cars.txt').write_bytes(data)
    with pytest.raises(CarvanaError, match='cars.txt: ') as e: read_cars(tmp_path/'cars.txt')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('change', ['mark', 'windows', 'blank', 'comment', 'upper', 'quotes', 'utf-16'])
def test_tables_of_masks(change, studio, tmp_path):
    masks = {p.name: read_mask(p.mask) for p in pairs(studio)}
    text = 'img,rle_mask\n' + ''.join(f'{name}.jpg,{encode(m)}\n' for name, m in masks.items())
    text = dict(mark='\ufeff' + text, windows=text.replace('\n', '\r\n'), blank=text.replace('\n', '\n\n') + '\n \n', comment='# best\n' + text + '# end, 1 2\n',
                upper=text.upper().replace('IMG,RLE_MASK', 'img,rle_mask'), quotes=text.replace('img', '"img"').replace('.jpg,', '.jpg","').replace('\n', '"\n'))\
        .get(change, text)
    if change == 'quotes': text = '"img","rle_mask"\n' + ''.join(f'"{name}.jpg","{encode(m)}"\n' for name, m in masks.items())
    (tmp_path/'masks.csv').write_bytes(text.encode('utf-16' if change == 'utf-16' else 'utf-8'))
    rows, _ = score_submission(tmp_path/'masks.csv', true_masks(studio))
    assert len(rows) == len(masks) and all(r['dice'] == 1 for r in rows)
    truth = true_masks(tmp_path/'masks.csv', (64, 96))
    assert all((truth[name]() == m).all() for name, m in masks.items())
    assert sorted(expected_names(studio/'train', tmp_path/'masks.csv')) == sorted(p.photo.name for p in pairs(studio))


def test_a_photo_whose_row_would_be_a_comment_is_refused(tmp_path):
    RAW.save(tmp_path/'#1.jpg')
    with pytest.raises(SubmissionError, match='is no good in a CSV file; rename it'): expected_names(tmp_path)
    (tmp_path/'a.csv').write_text('img,rle_mask\nno row\n')
    with pytest.raises(SubmissionError, match='is not a row'): list(read_rows(tmp_path/'a.csv'))


def test_ids_in_upper_case(studio, tmp_path):
    data = Path(shutil.copytree(studio, tmp_path/'data'))
    for p in pairs(data): p.photo.rename(p.photo.with_name(p.photo.stem.upper() + '.JPG'))
    assert [p.name for p in pairs(data)] == [p.name for p in pairs(studio)] and check(data) == []


# Values

def png16(values):
    "A PNG of 16 bits a channel, (H, W, 3)"
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    head = struct.pack('>IIBBBBB', values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


@pytest.mark.parametrize('bits', [8, 10, 12, 16])
@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_grey_of_any_depth(bits, suffix, tmp_path):
    grey = np.asarray(RAW.convert('L'))
    Image.fromarray((grey / 255 * (2**bits - 1)).round().astype(np.uint16)).save(tmp_path/f'grey.{suffix}')
    assert off(read_photo(tmp_path/f'grey.{suffix}')[..., 0], grey) < 1


def test_colours_of_12_bits_are_not_black(tmp_path):
    (tmp_path/'deep.png').write_bytes(png16(PHOTO.astype(int) * 257))
    assert off(read_photo(tmp_path/'deep.png'), PHOTO) < 1
    (tmp_path/'deep.png').write_bytes(png16((PHOTO / 255 * 4095).round().astype(int)))
    with pytest.warns(UserWarning, match='deep.png: its values are below 4,096'): seen = read_photo(tmp_path/'deep.png')
    assert off(seen, PHOTO) < 10


@pytest.mark.parametrize('values', [[np.nan, np.inf, -np.inf, .5], [-1, 0, .25, 1], [0, 1e30, 5, 1]])
def test_float_values_that_are_no_colours(values, tmp_path):
    Image.fromarray(np.float32([values])).save(tmp_path/'f.tif')
    assert read_photo(tmp_path/'f.tif').shape == (1, 4, 3)


@pytest.mark.parametrize('value', [np.nan, -1, -np.inf])
def test_float_values_without_a_grey_among_them(value, tmp_path):
    "They would come out black"
    Image.fromarray(np.full((3, 4), value, np.float32)).save(tmp_path/'f.tif')
    with pytest.raises(PhotoError, match='f.tif: .*no number above 0'): read_photo(tmp_path/'f.tif')
    Image.fromarray(np.zeros((3, 4), np.float32)).save(tmp_path/'f.tif')
    assert not read_photo(tmp_path/'f.tif').any()


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_a_photo_that_is_transparent_everywhere(mode, tmp_path):
    "Its colours count; laid on white, it would be blank"
    hidden = Image.fromarray(PHOTO).convert(mode)
    hidden.putalpha(0)
    hidden.save(tmp_path/'hidden.png')
    assert (read_photo(tmp_path/'hidden.png') == np.asarray(Image.fromarray(PHOTO).convert(mode[:-1]).convert('RGB'))).all()


@pytest.mark.parametrize('key', ['size', 'reduced', 'transparency', 'icc_profile', 'exif', 'gamma', 'dpi', 'xmp', 'interlace', 'duration'])
def test_a_png_text_is_no_property(key, tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text(key, 'some words'); text.add_itxt(key, 'more words')
    for mode in ('RGB', 'P', 'L', 'RGBA'):
        RAW.convert(mode).save(tmp_path/'text.png', pnginfo=text)
        RAW.convert(mode).save(tmp_path/'plain.png')
        for reduce in (1, 2):
            plain, hw = read_reduced(tmp_path/'plain.png', reduce)
            for photo in [tmp_path/'text.png'] + [Image.open(tmp_path/'text.png')] * (key != 'interlace'):   # there Pillow itself stumbles
                seen = read_reduced(photo, reduce)
                assert seen[1] == hw == (64, 96) and (seen[0] == plain).all()


@pytest.mark.parametrize('size', [(1918, 1), (5000, 1), (1, 5000), (7, 3), (63, 64), (65, 200)])
def test_thin_jpegs(size, model, tmp_path):
    Image.new('RGB', size, 'grey').save(tmp_path/'thin.jpg')
    for reduce in (1, 2, 4, 8):
        small, hw = read_reduced(tmp_path/'thin.jpg', reduce)
        assert hw == size[::-1] and small.shape[:2] == (-(-size[1] // reduce), -(-size[0] // reduce))
    assert run(carvana_predict, '-m', model, '-i', tmp_path/'thin.jpg', '-s', .25, '--cpu')[0] == 0
    assert read_mask(tmp_path/'thin_OUT.png').shape == size[::-1]


def test_a_gif_with_numbers_outside_its_palette(tmp_path, studio):
    "Number 203 of 32 colours"
    im = Image.fromarray(np.where(MASK, np.uint8(203), np.uint8(0)))
    im.putpalette(bytes(range(256)) * 3)
    out = io.BytesIO()
    im.save(out, 'GIF', optimize=False)
    data = bytearray(out.getvalue())
    assert data[10] & 7 == 7, 'a palette of 256 colours'
    data[10] = data[10] & ~7 | 4
    (tmp_path/'mask.gif').write_bytes(data[:13 + 3 * 32] + data[13 + 3 * 256:])
    for read in (read_photo, read_mask, read_classes):
        try: assert read(tmp_path/'mask.gif').shape[:2] == MASK.shape
        except PhotoError as e: assert 'mask.gif' in str(e)


def test_libtiff_and_pillow_print_nothing(tmp_path, capfd):
    RAW.save(tmp_path/'good.tif', compression='tiff_lzw')
    data = (tmp_path/'good.tif').read_bytes()
    refused = 0
    warnings.simplefilter('ignore')     # Python's warnings are another matter
    for i in range(0, len(data), 97):
        (tmp_path/'bad.tif').write_bytes(data[:i] + b'\xff\0\xff' + data[i + 3:])
        try: read_photo(tmp_path/'bad.tif')
        except PhotoError: refused += 1
    assert refused > 10 and capfd.readouterr() == ('', '')


# HEIC

def test_heic_without_its_extra(tmp_path, monkeypatch):
    (tmp_path/'phone.heic').write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(80))
    monkeypatch.setattr(photos, 'decoders', lambda: ['JPEG', 'PNG'])
    for photo in (tmp_path/'phone.heic', (tmp_path/'phone.heic').read_bytes()):
        with pytest.raises(PhotoError, match=r"is a HEIC image; pip install 'carvana-unet\[heic\]'"): read_photo(photo)


def test_heic(tmp_path):
    pytest.importorskip('pillow_heif')
    decoders()
    stored_in(WIDE['Display P3']).save(tmp_path/'phone.heic', quality=100, chroma='444', icc_profile=WIDE['Display P3'])
    assert off(read_photo(tmp_path/'phone.heic'), PHOTO) < 3
    assert read_reduced(tmp_path/'phone.heic', 2)[0].shape == (32, 48, 3)
    assert [p.name for p in list_photos(tmp_path)] == ['phone.heic']
    (tmp_path/'phone.heic').write_bytes((tmp_path/'phone.heic').read_bytes()[:300])
    with pytest.raises(PhotoError, match='phone.heic: '): read_photo(tmp_path/'phone.heic')
