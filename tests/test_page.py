"The page without Python, as its reader uses it: in a browser, from a server and from the disk"
import functools, http.server, threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_commands import save_tiny
from test_explorer import CHROMIUM, FLAGS, browser, choose, drag, number, watched  # noqa: F401

from carvana_unet.checkpoints import find_model, load_checkpoint
from carvana_unet.engines import TorchEngine
from carvana_unet.export import write_page
from carvana_unet.photos import read_mask
from carvana_unet.prediction import Predictor
from carvana_unet.studio import studio_photo

pytestmark = pytest.mark.skipif(not CHROMIUM, reason='needs Chromium: apt-get install chromium')
PATIENCE = 300_000  # ms: a busy machine


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "The page with the small network"
    return write_page(load_checkpoint(find_model('MODEL_small.pth')), tmp_path_factory.mktemp('page')/'cut_out').parent


@pytest.fixture(scope='module')
def server(folder):
    "What `python -m http.server` does in the folder; its address, and the paths that were asked for"
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, form, *args): asked.append(self.path)

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/', asked
    server.shutdown()


def float32(checkpoint, path):
    "The probability of a photo as Python computes it in float32"
    predictor = Predictor(checkpoint, device='cpu')
    predictor.engine = TorchEngine(checkpoint, 'cpu', torch.float32)
    return predictor.probability(path)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Two studio photos as the camera leaves them, one of them lying on its side, with what Python finds in float32"
    folder = tmp_path_factory.mktemp('photos')
    car, other = (Image.fromarray(studio_photo(seed, view, size)[0]) for seed, view, size in ((10_001, 3, (640, 959)), (10_002, 6, (600, 800))))
    exif = Image.Exif()
    exif[0x112] = 6  # the camera was turned
    car.save(folder/'car.png')
    other.transpose(Image.Transpose.ROTATE_90).save(folder/'turned.jpg', quality=95, exif=exif)
    checkpoint = load_checkpoint(find_model('MODEL_small.pth'))
    return {path: float32(checkpoint, path) for path in (folder/'car.png', folder/'turned.jpg')}


def isolate(page):
    "Wait until the page has loaded itself again, for threads; its policy forbids what `wait_for_function` does"
    from playwright.sync_api import Error
    for _ in range(300):
        page.wait_for_timeout(100)
        try:
            if page.evaluate('crossOriginIsolated'): return
        except Error: pass  # it was just leaving
    pytest.fail('the page is not isolated')


@contextmanager
def opened(browser, url, **options):
    "The page in a context of its own, in which nothing goes wrong"
    context = browser.new_context(viewport=dict(width=1200, height=900), accept_downloads=True, **options)
    page, faults = watched(context)
    page.goto(url)
    if url.startswith('http'): isolate(page)
    yield page
    context.close()
    assert not faults


def cut(page, *paths):
    "Give photos to the page, and wait for the first"
    page.locator('#files').set_input_files(paths)
    page.locator('.status', has_text=f'{paths[0].name}: ').wait_for(timeout=PATIENCE)


def saved(page, what):
    "What a button hands to the browser"
    with page.expect_download() as download: page.locator(f'[data-do={what}]').click()
    return download.value


def check(page, probability):
    "The mask that the page saves is Python's, but for pixels within 0.01 of the threshold"
    mask = read_mask(saved(page, 'mask').path())
    assert mask.shape == probability.shape
    sure = abs(probability - 0.5) > 0.01
    assert sure.mean() > 0.9 and 0.02 < mask.mean() < 0.98
    assert (mask[sure] == (probability[sure] > 0.5)).all()


def test_the_masks_are_those_of_python(browser, server, photos):
    (car, prob), (turned, turned_prob) = photos.items()
    url, asked = server
    with opened(browser, url) as page:
        cut(page, car, turned)
        print(page.locator('.status').inner_text())
        assert ' s (WebAssembly' in page.locator('.status').inner_text()
        check(page, prob)
        page.locator('[data-do=next]').click()
        page.locator('.status', has_text='turned.jpg: ').wait_for(timeout=PATIENCE)
        check(page, turned_prob)
        page.locator('[data-do=previous]').click()  # at once: it is not computed again
        page.locator('.name', has_text='car.png').wait_for()
        check(page, prob)
    assert {p.lstrip('/') for p in asked} <= {'', 'isolation.js', 'network.js', 'runtime.js'}


def test_from_the_disk_without_a_network(browser, folder, photos):
    car, prob = next(iter(photos.items()))
    with opened(browser, (folder/'index.html').as_uri(), offline=True) as page:
        assert 'one core' in page.locator('#note').inner_text()
        cut(page, car)
        check(page, prob)
        choose(page, 'view', 'cutout')
        before = number(page, 'area')
        page.locator('[data-tool=eraser]').click()
        drag(page, '.carvana-explorer canvas', (.3, .5), (.7, .5))
        assert number(page, 'area') != before
        image = np.array(Image.open(saved(page, 'cutout').path()))
        assert image.shape == (*prob.shape, 4) and f'{(image[..., 3] > 0).sum():,}' == number(page, 'area').split()[0]


def test_dropped_photos_are_taken(browser, folder, photos):
    car = next(iter(photos))
    with opened(browser, (folder/'index.html').as_uri()) as page:
        data = page.evaluate_handle('''bytes => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(bytes)], 'dropped.png', {type: 'image/png'}));
            return data;
        }''', list(car.read_bytes()))
        page.dispatch_event('h1', 'drop', dict(dataTransfer=data))
        page.locator('.name', has_text='dropped.png').wait_for()


def test_a_wrong_file_is_a_line_and_the_others_are_taken(browser, folder, photos, tmp_path):
    car = next(iter(photos))
    (tmp_path/'notes.jpg').write_text('no image')
    Image.new('L', (8000, 6500)).save(tmp_path/'vast.png')
    with opened(browser, (folder/'index.html').as_uri()) as page:
        page.locator('#files').set_input_files([tmp_path/'notes.jpg', tmp_path/'vast.png', car])
        page.locator('.name', has_text='car.png (1 of 1)').wait_for(timeout=PATIENCE)
        assert page.locator('#errors').inner_text().splitlines() == [
            'notes.jpg: is not an image that this browser can read; choose a JPEG, PNG or WebP file',
            'vast.png: 8000x6500 is too large for this page; shrink it to at most 50 million pixels, or use carvana-predict']


@pytest.mark.parametrize(('missing', 'name'), [('WebAssembly.validate = () => false', 'WebAssembly with SIMD'), ('delete globalThis.DecompressionStream', 'DecompressionStream')])
def test_an_old_browser_is_told_so(missing, name, browser, folder):
    context = browser.new_context()
    context.add_init_script(missing)
    page = context.new_page()
    page.goto((folder/'index.html').as_uri())
    assert page.locator('#errors').inner_text() == f'This browser has no {name}; update it, take another, or use carvana-predict.'
    assert page.locator('#files').is_disabled()
    context.close()


def test_a_part_that_is_missing_is_named(browser, folder, photos, tmp_path):
    (tmp_path/'index.html').write_bytes((folder/'index.html').read_bytes())
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path/'index.html').as_uri())
    cut(page, next(iter(photos)))
    assert page.locator('.status.error').inner_text() == 'car.png: the network failed (network.js: is missing beside this page; write the folder again); reload the page, or shrink the photo'
    context.close()


def test_nothing_can_be_sent(browser, server):
    url, asked = server
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    isolate(page)
    for send in f"fetch('{url}sent')", "new Promise((_, no) => { const r = new XMLHttpRequest(); r.onerror = () => no(Error('blocked')); r.open('POST', '/sent'); r.send('x'); })":
        with pytest.raises(Exception, match='Failed to fetch|blocked|Refused'): page.evaluate(f'() => {send}')
    page.evaluate("navigator.sendBeacon('/sent', 'x')")
    page.wait_for_timeout(300)
    assert not [p for p in asked if 'sent' in p]
    context.close()


def test_it_fits_a_phone(browser, folder, photos):
    with opened(browser, (folder/'index.html').as_uri(), ) as page:
        page.set_viewport_size(dict(width=390, height=844))
        fits = 'document.documentElement.scrollWidth <= innerWidth'
        assert page.evaluate(fits)
        cut(page, next(iter(photos)))
        assert page.evaluate(fits)
        nameless = page.evaluate("[...document.querySelectorAll('input, button, select')].filter(n => !(n.getAttribute('aria-label') || n.textContent.trim() || n.closest('label')?.textContent.trim())).length")
        assert not nameless


def test_webgpu_gives_the_same_mask(browser, tmp_path):
    "On a GPU that Chromium emulates: with a tiny network, since it is slow"
    checkpoint = replace(load_checkpoint(save_tiny(tmp_path/'tiny.pth')), scale=1, size=None)
    Image.fromarray(studio_photo(10_001, 3, (80, 120))[0]).save(tmp_path/'car.png')
    flags = [f for f in FLAGS.split() if f != '--disable-gpu'] + ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader']
    own = browser.browser_type.launch(executable_path=CHROMIUM, args=flags)
    page = own.new_page()
    page.goto(write_page(checkpoint, tmp_path/'tiny').as_uri())
    if not page.evaluate('navigator.gpu?.requestAdapter().then(a => !!a)'): pytest.skip('this Chromium emulates no GPU')
    cut(page, tmp_path/'car.png')
    assert '(WebGPU)' in page.locator('.status').inner_text()
    check(page, float32(checkpoint, tmp_path/'car.png'))
    own.close()
