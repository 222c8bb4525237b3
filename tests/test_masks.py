"One meaning of a mask: however one is stored, `read_mask`, the doctor, training and what `--fix` writes agree, or all of them refuse it"
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from carvana_unet.batches import decode_classes, decode_mask
from carvana_unet.carvana import Pair, pairs
from carvana_unet.doctor import FAULTS, check, examine, fix
from carvana_unet.photos import PhotoError, read_classes, read_mask, read_photo, write_classes, write_mask
from carvana_unet.studio import studio_photo, write_studio

pytestmark = pytest.mark.reliability('masks stored in other ways')

SIZE = (80, 120)
grow = lambda mask, n: np.asarray(Image.fromarray(mask).convert('L').filter(ImageFilter.MaxFilter(n))) > 0
border = lambda mask: grow(mask, 5) & ~mask


def scaled(value, dtype=np.uint8):
    "0 and `value`"
    return lambda mask, photo: Image.fromarray(mask.astype(dtype) * dtype(value))


def numbers(*values, void=None, dtype=np.uint8):
    "Class numbers for the background, the upper and the lower part of the car, and its border"
    def store(mask, photo):
        x = np.array([*values, *values[-1:]][:3])[mask.astype(int) + (mask & (np.arange(len(mask)) > 50)[:, None])].astype(dtype)
        if void is not None: x[border(mask)] = void
        return Image.fromarray(x)
    return store


def colour(car, back=(0, 0, 0)):
    return lambda mask, photo: Image.fromarray(np.where(mask[..., None], np.uint8(car), np.uint8(back)))


def palette(store, colours):
    "With a palette, the last colour for all that is beyond"
    def stored(mask, photo):
        im = store(mask, photo)
        im.putpalette(np.uint8([*colours, *[colours[-1]] * 256][:256]).tobytes())
        return im
    return stored


def alpha(opaque, colours=None):
    "Opacity on the car, over the photo or a colour"
    def store(mask, photo):
        rgb = photo if colours is None else np.broadcast_to(np.uint8(colours), photo.shape)
        return Image.fromarray(np.dstack([rgb, mask * np.uint8(opaque)]))
    return store


def turned(store):
    return lambda mask, photo: store(~mask, photo)


def jpeg(store, quality, again=False):
    "As JPEG, or as a PNG that once was one"
    def stored(mask, photo):
        store(mask, photo).save(file := io.BytesIO(), 'JPEG', quality=quality)
        im = Image.open(file)
        im.load()
        return Image.fromarray(np.asarray(im)) if again else im
    return stored


def blurred(radius, mode='L'):
    return lambda mask, photo: Image.fromarray(mask).convert('L').filter(ImageFilter.GaussianBlur(radius)).convert(mode)


def converted(store, mode):
    return lambda mask, photo: store(mask, photo).convert(mode)


def grey_alpha(colour, opaque):
    return lambda mask, photo: Image.fromarray(np.dstack([np.uint8(mask * colour[1] + ~mask * colour[0]), np.uint8(mask * opaque[1] + ~mask * opaque[0])]))


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128), (64, 0, 0), (224, 224, 192)]
white = scaled(255)
# how it is stored, the suffix, what the doctor says besides
READ = {
    '0 and 255': (white, 'png', set()),
    '1 bit': (converted(white, '1'), 'png', set()),
    '0 and 1': (scaled(1), 'png', {'dark'}),
    '0 and 63': (scaled(63), 'png', {'dark'}),
    '0 and 200': (scaled(200), 'png', set()),
    '250 and 255': (lambda m, p: Image.fromarray(250 + m * np.uint8(5)), 'png', set()),
    'RGB': (converted(white, 'RGB'), 'png', {'color'}),
    'RGB of 0 and 1': (converted(scaled(1), 'RGB'), 'png', {'dark'}),
    'red': (colour((255, 0, 0)), 'png', {'color'}),
    'labelme red': (colour((128, 0, 0)), 'png', {'color'}),
    'Cityscapes blue': (colour((0, 0, 142)), 'png', {'color'}),
    'number in the red channel': (colour((10, 0, 0)), 'png', {'dark'}),
    '16 bits, 0 and 1': (scaled(1, np.uint16), 'png', {'dark'}),
    '16 bits, 0 and 200': (scaled(200, np.uint16), 'png', {'color'}),
    '16 bits, 0 and 4095': (scaled(4095, np.uint16), 'png', {'color'}),
    '16 bits, 0 and 65535': (scaled(65535, np.uint16), 'png', {'color'}),
    '32 bits': (scaled(100_000, np.int32), 'tif', {'color', 'format'}),
    'float 0 and 1': (scaled(1, np.float32), 'tif', {'color', 'format'}),
    'BMP': (white, 'bmp', {'format'}),
    'lossless WebP': (white, 'webp', {'color', 'format'}),
    'GIF': (white, 'gif', set()),
    'GIF of 0 and 1': (scaled(1), 'gif', {'dark'}),
    'cut-out': (alpha(255), 'png', {'color'}),
    'cut-out on black': (lambda m, p: alpha(255)(m, p * m[..., None]), 'png', {'color'}),
    'cut-out, half opaque': (alpha(128), 'png', {'color'}),
    'black with alpha': (alpha(255, (0, 0, 0)), 'png', {'color'}),
    'white with alpha': (alpha(255, (255, 255, 255)), 'png', {'color'}),
    'LA, black': (grey_alpha((0, 0), (0, 255)), 'png', {'color'}),
    'LA, both': (grey_alpha((0, 255), (0, 255)), 'png', {'color'}),
    'LA, opaque': (grey_alpha((0, 255), (255, 255)), 'png', {'color'}),
    'overlay': (lambda m, p: Image.fromarray(np.dstack([np.asarray(colour((255, 0, 0))(m, p)), np.uint8(255 - 127 * m)])), 'png', {'color'}),
    'PA': (converted(converted(white, 'P'), 'PA'), 'tif', {'color', 'format'}),
    'CMYK': (converted(converted(white, 'RGB'), 'CMYK'), 'tif', {'color', 'format'}),
    'Carvana GIF': (palette(scaled(1), [(0, 0, 0), (255, 255, 255)]), 'gif', set()),
    'white first': (palette(turned(scaled(1)), [(255, 255, 255), (0, 0, 0)]), 'gif', set()),
    'VOC palette': (palette(scaled(7), VOC), 'png', set()),
    'black palette': (palette(scaled(1), [(0, 0, 0)]), 'png', set()),
    'red on white palette': (palette(scaled(1), [(255, 255, 255), (200, 0, 0)]), 'png', set()),
    'orange first': (palette(turned(scaled(1)), [(230, 159, 0), (0, 0, 0)]), 'png', set()),
    'adaptive palette': (lambda m, p: colour((255, 0, 0))(m, p).quantize(4), 'png', set()),
    'palette, 2 classes': (palette(numbers(0, 1, 8), VOC), 'png', {'classes'}),
    'palette, grey classes': (palette(numbers(0, 1, 2), [(0, 0, 0), (127,) * 3, (255,) * 3]), 'png', {'classes'}),
    '2 classes': (numbers(0, 1, 2), 'png', {'classes'}),
    '2 classes in 16 bits': (numbers(0, 1, 2, dtype=np.uint16), 'png', {'classes'}),
    '2 classes in a GIF': (numbers(0, 1, 8), 'gif', {'classes'}),
    '2 classes in RGB': (converted(numbers(0, 1, 2), 'RGB'), 'png', {'classes'}),
    'VOC border': (numbers(0, 1, void=255), 'png', {'ignore', 'dark'}),
    'border of 254': (numbers(0, 1, void=254), 'png', {'ignore', 'dark'}),
    'border of 65535': (numbers(0, 1, void=65535, dtype=np.uint16), 'png', {'ignore', 'dark'}),
    'border of 255 in 16 bits': (numbers(0, 1, void=255, dtype=np.uint16), 'png', {'ignore', 'dark'}),
    'border of -1': (numbers(0, 1, void=-1, dtype=np.int32), 'tif', {'ignore', 'dark', 'format'}),
    'border of -1, float': (numbers(0, 2, void=-1, dtype=np.float32), 'tif', {'ignore', 'dark', 'format'}),
    'border of NaN': (numbers(0, 3, void=np.nan, dtype=np.float32), 'tif', {'ignore', 'dark', 'format'}),
    'VOC border in a palette': (palette(numbers(0, 7, void=255), VOC), 'png', {'ignore'}),
    'VOC border in a GIF': (numbers(0, 1, void=255), 'gif', {'ignore', 'dark'}),
    'VOC border, 2 classes': (palette(numbers(0, 1, 8, void=255), VOC), 'png', {'ignore', 'classes'}),
    'Cityscapes car and void': (numbers(0, 26, void=255), 'png', {'ignore', 'dark'})}
# as above; the greatest share of pixels that differ
NEARLY = {
    'anti-aliased': (blurred(.7), 'png', {'soft'}, .003),
    'anti-aliased RGB': (blurred(.7, 'RGB'), 'png', {'soft'}, .003),
    'anti-aliased cut-out': (lambda m, p: Image.fromarray(np.dstack([p, np.asarray(blurred(.7)(m, p))])), 'png', {'color', 'soft'}, .003),
    'blurred': (blurred(3), 'png', {'soft'}, .02),
    '16-bit probability': (lambda m, p: Image.fromarray(np.asarray(blurred(.7)(m, p)).astype(np.uint16) * 257), 'png', {'soft'}, .003),
    'float probability': (lambda m, p: Image.fromarray(np.asarray(blurred(.7)(m, p)) / np.float32(255)), 'tif', {'soft', 'format'}, .003),
    'twice enlarged': (lambda m, p: white(m, p).reduce(2).resize(SIZE[::-1], Image.Resampling.BICUBIC), 'png', {'soft'}, .01),
    'soft GIF': (blurred(.7), 'gif', {'soft'}, .003),
    **{f'JPEG {q}': (jpeg(white, q), 'jpg', {'noise', 'format'}, .003) for q in (20, 50, 75, 95)},
    'JPEG of 200': (jpeg(scaled(200), 50), 'jpg', {'noise', 'format'}, .003),
    'red JPEG': (jpeg(colour((255, 0, 0)), 75), 'jpg', {'noise', 'format'}, .006),
    'once a JPEG': (jpeg(white, 75, again=True), 'png', {'noise'}, .003)}
INVERTED = {
    'black on white': (turned(white), 'png'),
    '1 and 0': (turned(scaled(1)), 'png'),
    'black on white palette': (palette(scaled(1), [(255,) * 3, (0,) * 3]), 'png'),
    'hole': (turned(alpha(255)), 'png')}
REFUSED = {
    '0, 38, 75': (numbers(0, 38, 75), 'png', 'mask'),
    '0, 128, 255': (numbers(0, 128, 255), 'png', 'mask'),
    'two label colours': (lambda m, p: Image.fromarray(np.uint8(VOC)[np.asarray(numbers(0, 1, 2)(m, p))]), 'png', 'mask'),
    'VOC colours with border': (lambda m, p: Image.fromarray(np.uint8(VOC)[np.asarray(numbers(0, 1, void=9)(m, p))]), 'png', 'mask'),
    'red on white': (colour((255, 0, 0), (255, 255, 255)), 'png', 'mask'),
    'blue on red': (colour((0, 0, 255), (255, 0, 0)), 'png', 'mask'),
    'transparent border': (lambda m, p: Image.fromarray(np.dstack([m * np.uint8(255), 255 - border(m) * np.uint8(255)])), 'png', 'mask'),
    'photo': (lambda m, p: Image.fromarray(p), 'png', 'mask'),
    'grey photo': (lambda m, p: Image.fromarray(p).convert('L'), 'png', 'mask'),
    'opaque photo': (lambda m, p: Image.fromarray(p).convert('RGBA'), 'png', 'mask'),
    'static': (lambda m, p: Image.fromarray(np.random.RandomState(0).randint(0, 256, SIZE).astype(np.uint8)), 'png', 'mask'),
    'specks': (lambda m, p: Image.fromarray(np.random.RandomState(0).randint(0, 4, SIZE).astype(np.uint8)), 'png', 'mask'),
    'dark JPEG': (lambda m, p: jpeg(scaled(12), 90)(m, p), 'jpg', 'mask'),
    'Oxford trimap': (lambda m, p: Image.fromarray(np.where(border(m), np.uint8(3), np.where(m, np.uint8(1), np.uint8(2)))), 'png', 'numbers'),
    '1 and 2': (numbers(1, 2), 'png', 'numbers'),
    'Cityscapes street': (numbers(7, 26, 26), 'png', 'numbers')}
TABLE = {name: dict(store=c[0], suffix=c[1], kinds=c[2], wrong=c[3] if len(c) > 3 else 0) for name, c in (READ | NEARLY).items()}
TABLE |= {name: dict(store=store, suffix=suffix, kinds={'inverted'}) for name, (store, suffix) in INVERTED.items()}
TABLE |= {name: dict(store=store, suffix=suffix, kinds={kind}) for name, (store, suffix, kind) in REFUSED.items()}


def save(im, path):
    im.save(path, **(dict(lossless=True) if path.suffix == '.webp' else dict(quality='keep') if im.format == 'JPEG' else {}))


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    "A folder with a photo for each case, its true masks, what the doctor finds, and the folder that it writes"
    folder, good = tmp_path_factory.mktemp('masks'), tmp_path_factory.mktemp('fixed')/'good'
    write_studio(folder, seeds=range(100, 100 + -(-len(TABLE) // 16)), size=SIZE)
    truth, found, total = {}, {}, len(pairs(folder))
    for (name, case), pair in zip(TABLE.items(), pairs(folder)):
        truth[name] = read_mask(pair.mask)
        photo = read_photo(pair.photo)
        pair.mask.unlink()
        mask = pair.mask.with_suffix('.' + case['suffix'])
        save(case['store'](truth[name], photo), mask)
        found[name] = Pair(pair.photo, mask)
    findings = check(folder)
    written, _ = fix(folder, good, findings)
    return dict(total=total, written=written, truth=truth, pairs=found, findings=findings, good={p.name: p for p in pairs(good)})


def differs(a, b): return float((a != b).mean())


@pytest.mark.parametrize('name', [*READ, *NEARLY])
def test_each_is_read_as_it_was_meant(stored, name):
    case, pair, true = TABLE[name], stored['pairs'][name], stored['truth'][name]
    mask = read_mask(pair.mask)
    assert differs(mask, true) <= case['wrong']
    assert {f.kind for f in stored['findings'] if f.file == pair.mask} - {'share'} == case['kinds']
    assert (decode_mask(pair.mask, 1) == mask * 255).all()
    assert (read_mask(stored['good'][pair.name].mask) == mask).all()


@pytest.mark.parametrize('name', INVERTED)
def test_an_inverted_mask_is_a_fault_and_turned_by_fix(stored, name):
    pair, true = stored['pairs'][name], stored['truth'][name]
    assert (read_mask(pair.mask) == ~true).all()
    assert [f.kind for f in stored['findings'] if f.file == pair.mask and f.fault] == ['inverted']
    assert (read_mask(stored['good'][pair.name].mask) == true).all()


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_unclear_is_refused_by_all(stored, name):
    pair = stored['pairs'][name]
    faults = [f for f in stored['findings'] if f.file == pair.mask and f.fault and f.kind != 'format']
    assert [f.kind for f in faults] == [TABLE[name]['kinds'].copy().pop()]
    for read in (lambda: read_mask(pair.mask), lambda: decode_mask(pair.mask, .5)):
        with pytest.raises(PhotoError) as e: read()
        assert str(e.value) == str(faults[0])
        assert '\n' not in str(e.value) and len(str(e.value)) < len(str(pair.mask)) + 220
    assert pair.name not in stored['good']


def test_what_fix_writes_has_no_faults(stored):
    assert len(stored['good']) == stored['written'] == stored['total'] - len(REFUSED)
    for pair in stored['good'].values(): assert [f for f in examine(pair).findings if f.fault] == []


@pytest.mark.parametrize('name', ['VOC border', 'VOC border in a palette', 'border of 65535', 'border of -1', 'VOC border in a GIF'])
def test_class_numbers_have_no_ignored_ones(stored, name):
    pair, true = stored['pairs'][name], stored['truth'][name]
    labels = read_classes(pair.mask)
    assert ((labels > 0) == true).all() and len(np.unique(labels)) == 2
    assert (decode_classes(pair.mask, 1, 9) == labels).all()


def test_a_number_beyond_the_palette_is_damage(tmp_path):
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    rows = b''.join(b'\0' + bytes([0, 5, 5, 0]) for _ in range(4))
    (tmp_path/'mask.png').write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>2I5B', 4, 4, 8, 3, 0, 0, 0)) +
        chunk(b'PLTE', bytes([0, 0, 0, 255, 0, 0])) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))
    with pytest.raises(PhotoError, match='holds the number 5, and its palette ends at 1; download'): read_mask(tmp_path/'mask.png')


CAR = studio_photo(7, 3, size=SIZE)[1]


def read(im, tmp_path_factory, suffix='.png'):
    path = tmp_path_factory.getbasetemp()/f'property{suffix}'
    save(im, path)
    return read_mask(path)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([np.uint8, np.uint16]), st.data())
def test_of_any_two_levels_the_lighter_is_car(tmp_path_factory, dtype, data):
    low = data.draw(st.integers(0, np.iinfo(dtype).max - 1))
    high = data.draw(st.integers(low + 1, np.iinfo(dtype).max))
    im = Image.fromarray(np.where(CAR, dtype(high), dtype(low)))
    if low and high < 64:
        with pytest.raises(PhotoError, match='no 0'): read(im, tmp_path_factory)
    else: assert (read(im, tmp_path_factory) == CAR).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 63), st.integers(1, 63), st.sampled_from([255, 254, 65535]), st.booleans())
def test_of_class_numbers_all_but_0_and_the_ignored_are_car(tmp_path_factory, upper, lower, void, gif):
    store = numbers(0, upper, lower, void=void, dtype=np.uint16 if void > 255 else np.uint8)
    assert (read(store(CAR, None), tmp_path_factory, '.gif' if gif and void < 256 else '.png') == CAR).all()


@settings(deadline=None, max_examples=40)
@given(st.permutations(range(1, 9)), st.booleans())
def test_the_colours_of_a_palette_do_not_matter(tmp_path_factory, order, border):
    store = palette(numbers(0, 3, 5, void=255 if border else None), [VOC[0], *(VOC[i] for i in order), VOC[9]])
    assert (read(store(CAR, None), tmp_path_factory) == CAR).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@example(1, 1, 270)  # class 32 alone, whose colour is black
def test_what_is_written_is_read_again(tmp_path_factory, h, w, seed):
    mask = np.random.RandomState(seed).rand(h, w) > .5
    path = tmp_path_factory.getbasetemp()/'written.png'
    assert (read_mask(write_mask(mask, path)) == mask).all()
    labels = np.random.RandomState(seed).randint(0, 64, (h, w)).astype(np.uint8)
    assert (read_classes(write_classes(labels, path)) == labels).all()


def test_every_refusal_has_an_advice():
    assert {kind for _, _, kind in REFUSED.values()} <= set(FAULTS)
