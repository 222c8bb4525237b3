"The explorer as a reader uses it: in a real browser, on a saved page without a network and in JupyterLab with a kernel"
import base64, io, os, shlex, shutil, socket, subprocess, sys, time, urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from carvana_unet.checkpoints import Checkpoint, save_checkpoint
from carvana_unet.dice import boundary_error, dice
from carvana_unet.explorer import MaskExplorer, RateExplorer, eight_bits  # noqa: F401, RATES names one
from carvana_unet.photos import COLOURS, read_classes, read_mask
from carvana_unet.studio import STUDIO_CLASSES, studio_photo, write_studio
from carvana_unet.unet import UNet

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
FLAGS = '--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run'
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='needs Chromium: apt-get install chromium')
VIEWS = 'overlay photo mask cutout boundary heat uncertainty difference'.split()  # those of every photo with its truth
COUNT_FRAMES = '''() => {  // how long each frame takes to draw, and when it does
    const paint = explorer.paint;
    window.drawn = [];
    explorer.paint = () => {
        const start = performance.now();
        paint.call(explorer);
        explorer.canvas.getContext('2d').getImageData(0, 0, 1, 1);  // waits until the pixels are there
        drawn.push(performance.now() - start);
    };
}'''


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Three views of a studio car, with their masks"
    return write_studio(tmp_path_factory.mktemp('explorer')/'studio', seeds=[10_001], views=(1, 2, 5), size=(320, 480))


@pytest.fixture(scope='module')
def saved(folder):
    "The page of these, and the explorer that wrote it"
    explorer = MaskExplorer(folder, scale=.25, index=1, device='cpu')
    return explorer.save(folder.parent/'explorer.html'), explorer


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    "The file of a network that knows parts of a car; it has learnt nothing, but every part wins somewhere"
    torch.manual_seed(2)
    net = UNet(n_classes=4, width=4, depth=2)
    for p in net.parameters(): torch.nn.init.normal_(p)
    path = tmp_path_factory.mktemp('parts')/'parts.pth'
    save_checkpoint(Checkpoint(net.state_dict(), net.arch, scale=1, classes=list(STUDIO_CLASSES)), path)
    return path


@contextmanager
def opened(browser, path, ready='[data-number=edge]'):
    "A saved page, opened without a network; nothing may be asked of one, and nothing may go wrong"
    context = browser.new_context(viewport=dict(width=1200, height=900), accept_downloads=True, offline=True)
    page, faults = watched(context)
    page.on('request', lambda r: r.url.startswith(('file:', 'blob:', 'data:')) or faults.append(r.url))
    page.goto(path.as_uri())
    page.wait_for_selector(ready)
    yield page
    context.close()
    assert not faults


@pytest.fixture
def page(browser, saved):
    with opened(browser, saved[0]) as page: yield page


def watched(context):
    "A page and the list of its errors, filled as they come"
    page, faults = context.new_page(), []
    page.on('pageerror', lambda e: faults.append(str(e)))
    page.on('console', lambda m: faults.append(m.text) if m.type == 'error' else None)
    return page, faults


def barriers(page):
    "What axe-core finds serious in a page and its frames: a line for each rule that is broken"
    import axe_playwright_python
    axe = Path(axe_playwright_python.__file__).with_name('axe.min.js').read_text(encoding='utf-8')
    found = []
    for frame in page.frames:
        frame.evaluate(axe)
        broken = frame.evaluate('axe.run(document, {iframes: false})')['violations']
        found += [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in broken if v['impact'] in ('serious', 'critical')]
    return found


def settle(page):
    "Wait until what was done is drawn"
    page.evaluate('() => new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))')


def number(page, name):
    "The words that stand beside a number"
    settle(page)
    return page.locator(f'[data-number={name}]').inner_text()


def shown(page):
    "What the canvas shows: uint8 (h, w, 4)"
    settle(page)
    url = page.evaluate("document.querySelector('.carvana-explorer canvas').toDataURL()")
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(',')[1]))))


def drag(page, place, start, end, steps=8):
    "Hold the mouse at `start` and let go at `end`, both as shares of the width and height of `place`"
    box = page.locator(place).bounding_box()
    x, y, w, h = (box[k] for k in ('x', 'y', 'width', 'height'))
    page.mouse.move(x + start[0] * w, y + start[1] * h)
    page.mouse.down()
    page.mouse.move(x + end[0] * w, y + end[1] * h, steps=steps)
    page.mouse.up()


def choose(page, key, value):
    page.locator(f'[data-key={key}]').select_option(value)
    settle(page)


def enlarged(page):
    "What the canvas shows with 3 pixels for each of the photo's: uint8 (h, w, 4); and an index that does the same to an array"
    page.evaluate('explorer.zoomTo(3)')
    picture = shown(page)
    x, y = page.evaluate('[explorer.x, explorer.y]')
    h, w, _ = picture.shape
    return picture, np.ix_(*(np.floor(c - n / 2 / 3 + np.arange(n) / 3).astype(int) for c, n in ((y, h), (x, w))))


def test_the_threshold_follows_the_mouse(page, saved):
    before, dice_before = shown(page), number(page, 'dice')
    drag(page, '.plot', (.5, .5), (.9, .5))
    t = page.evaluate("explorer.get('threshold')")
    assert .85 < t < .95 and number(page, 'dice') != dice_before
    assert (shown(page) != before).any()


@pytest.mark.parametrize('t', (.1, .5, .9))
def test_the_numbers_are_those_of_python(t, page, saved):
    explorer = saved[1]
    q, true = eight_bits(explorer.stages.probability(1, explorer.settings)[0]['prob']), explorer.stages.truth(1)
    page.evaluate(f"explorer.set('threshold', {t})")
    page.wait_for_function("document.querySelector('[data-number=edge]').textContent != '...'")
    mask = q > 255 * t
    d = dice(mask, true)
    assert number(page, 'dice') == f'{d:.5f}' and number(page, 'iou') == f'{d / (2 - d):.5f}'
    assert number(page, 'edge') == f'{boundary_error(mask, true):.2f} px'
    assert number(page, 'area').split()[0] == f'{mask.sum():,}'


def test_the_mask_is_drawn_pixel_for_pixel(page, saved):
    explorer = saved[1]
    q = eight_bits(explorer.stages.probability(1, explorer.settings)[0]['prob'])
    choose(page, 'view', 'mask')
    picture, seen = enlarged(page)
    assert ((picture[..., 0] > 0) == (q > 127.5)[seen]).all()


def test_only_what_changes_is_drawn_again(page):
    for view, zoom in ('overlay', 1), ('difference', .7), ('mask', 5):
        choose(page, 'view', view)
        page.evaluate(f'explorer.zoomTo({zoom} * explorer.least)')
        shown(page)
        for t in .2, .9, .05, .5:
            page.evaluate(f"explorer.set('threshold', {t})")
            quick = shown(page)
            page.evaluate('explorer.drawn = null; explorer.draw()')
            assert (shown(page) == quick).all(), (view, t)
    choose(page, 'other', 'heat')
    shown(page)
    page.evaluate("explorer.set('split', .3)")
    quick = shown(page)
    page.evaluate('explorer.drawn = null; explorer.draw()')
    assert (shown(page) == quick).all()


def test_every_view_differs(page):
    pictures = []
    for view in VIEWS:
        choose(page, 'view', view)
        page.wait_for_timeout(300)
        pictures.append(shown(page))
    for i, a in enumerate(pictures): assert all((a != b).any() for b in pictures[:i]), VIEWS[i]


def test_classes_have_colours_and_a_legend(browser, folder, parts, tmp_path):
    explorer = MaskExplorer(folder, model=parts, index=1, device='cpu', opacity=1)
    arrays = explorer.stages.probability(1, explorer.settings)[0]
    classes = np.where(eight_bits(arrays['prob']) > 127.5, arrays['labels'], 0)
    assert len(np.unique(classes)) == 4
    with opened(browser, explorer.save(tmp_path/'classes.html')) as page:
        assert page.locator('.legend .swatch').all_inner_texts() == list(STUDIO_CLASSES[1:])
        assert number(page, 'classes') == ', '.join(f'{name} {(classes == i).sum():,}' for i, name in enumerate(STUDIO_CLASSES) if i)
        picture, seen = enlarged(page)
        there = classes[seen] > 0
        assert (picture[there][:, :3] == COLOURS[classes[seen][there]]).all()
        with page.expect_download() as download: page.locator('[data-do=mask]').click()
        assert (np.array(Image.open(download.value.path()).convert('RGB')) == COLOURS[classes]).all()
        choose(page, 'view', 'difference')
        assert not page.locator('.legend .swatch').count()
    small = MaskExplorer(folder, model=parts, device='cpu').save(tmp_path/'small.html', size=100)
    with opened(browser, small) as page: assert page.locator('.legend .swatch').count() == 3


def test_two_views_meet_at_the_split(page):
    choose(page, 'view', 'mask')
    whole = shown(page)
    choose(page, 'other', 'heat')
    half = shown(page)
    middle = whole.shape[1] // 2
    assert (half[:, :middle - 2] == whole[:, :middle - 2]).mean() > .999 and (half[:, middle + 2:] != whole[:, middle + 2:]).any()
    drag(page, '.seam', (.5, .3), (-8, .3))
    assert page.evaluate("explorer.get('split')") < .4
    page.locator('.seam').press('ArrowRight')
    page.wait_for_function("document.querySelector('.seam').ariaValueNow == Math.round(100 * explorer.get('split'))")  # with the next frame


def test_zoom_to_single_pixels_and_move(page):
    fit = page.evaluate('explorer.zoom')
    page.mouse.move(400, 300)
    page.mouse.wheel(0, -300)
    assert page.evaluate('explorer.zoom') == fit  # a page that is scrolled past does not zoom
    page.mouse.click(400, 300)
    for _ in range(30): page.mouse.wheel(0, -300)
    page.wait_for_timeout(200)
    assert page.evaluate('explorer.zoom') == 64
    pixels = shown(page)
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) < 600  # few and large
    x = page.evaluate('explorer.x')
    drag(page, '.carvana-explorer canvas', (.5, .5), (.2, .5))
    assert page.evaluate('explorer.x') > x
    page.keyboard.press('-')
    assert 40 < page.evaluate('explorer.zoom') < 64
    page.keyboard.press('0')
    assert page.evaluate('explorer.zoom') == fit


def test_arrows_and_space_turn_the_car(page):
    page.locator('.carvana-explorer canvas').focus()
    page.keyboard.press('ArrowRight')
    assert page.evaluate("explorer.get('index')") == 2
    page.keyboard.press('ArrowLeft')
    page.keyboard.press(' ')
    assert page.locator('[data-do=play]').inner_text() == 'Stop'
    seen = set()
    for _ in range(60):
        seen.add(page.evaluate("explorer.get('index')"))
        page.wait_for_timeout(50)
    assert seen == {0, 1, 2}
    page.keyboard.press(' ')
    page.wait_for_timeout(300)
    at = page.evaluate("explorer.get('index')")
    page.wait_for_timeout(500)
    assert page.evaluate("explorer.get('index')") == at


def test_sort_by_the_worst(page, saved):
    explorer = saved[1]
    scores = [dice(eight_bits(explorer.stages.probability(i, explorer.settings)[0]['prob']) > 127.5, explorer.stages.truth(i)) for i in range(3)]
    choose(page, 'sort', 'dice')
    assert page.evaluate('explorer.order') == list(np.argsort(scores))
    assert page.locator('.thumb').first.locator('span').inner_text() == f'Dice {min(scores):.4f}'
    page.evaluate("explorer.set('threshold', .99)")
    page.wait_for_timeout(400)
    strict = [page.evaluate(f'explorer.score({i}).dice') for i in range(3)]
    assert strict != pytest.approx(scores, abs=1e-4)
    assert page.evaluate('explorer.order') == list(np.argsort(strict))
    assert page.locator('.thumb').first.locator('span').inner_text() == f'Dice {min(strict):.4f}'


def test_the_strip_follows_the_threshold(page):
    "Each number says what it is, and is that of the current threshold"
    page.evaluate("explorer.set('threshold', .99)")
    page.wait_for_timeout(400)
    for i in range(3):
        assert page.locator(f'.thumb[data-index="{i}"] span').inner_text() == f"Dice {page.evaluate(f'explorer.score({i}).dice'):.4f}"


def test_keys_of_sliders_and_of_the_photo(page):
    "Home, End and the page keys move a slider to its ends and in large steps; arrows move a photo that is zoomed"
    page.locator('.plot').focus()
    for key, level in ('Home', 1), ('PageUp', 17), ('ArrowRight', 18), ('End', 255), ('PageDown', 239):
        page.keyboard.press(key)
        assert page.evaluate('explorer.level') == level
    page.evaluate("explorer.set('other', 'mask')")
    settle(page)
    page.locator('.seam').focus()
    for key, split in ('Home', 0), ('PageUp', .32), ('End', 1):
        page.keyboard.press(key)
        assert page.evaluate("explorer.get('split')") == pytest.approx(split)
    canvas, name = page.locator('.carvana-explorer canvas'), page.locator('.name')
    canvas.focus()
    page.keyboard.press('+')
    x, y, before = *page.evaluate('[explorer.x, explorer.y]'), name.inner_text()
    for key in 'ArrowLeft', 'ArrowUp': page.keyboard.press(key)
    assert (page.evaluate('explorer.x') < x, page.evaluate('explorer.y') < y, name.inner_text()) == (True, True, before)
    page.keyboard.press('0')
    page.keyboard.press('ArrowRight')
    page.wait_for_function("before => document.querySelector('.name').textContent != before", arg=before)


@pytest.mark.parametrize('scheme', ('light', 'dark'))
def test_the_explorer_has_no_barriers(scheme, page):
    page.emulate_media(color_scheme=scheme)
    page.evaluate("explorer.set('other', 'mask')")
    settle(page)
    assert not barriers(page)


def test_without_a_truth_the_histogram_fills_the_plot(browser, saved, folder, tmp_path):
    explorer = MaskExplorer(folder/'train', scale=.25, device='cpu')
    with opened(browser, explorer.save(tmp_path/'plain.html'), ready='[data-number=expected]') as page:
        settle(page)
        top = min(float(y) for y in page.evaluate("document.querySelector('.plot .all').getAttribute('d')").replace('M0 148', '').split('V')[1:] for y in [y.split('H')[0].rstrip('Z')])
        assert top < 20


def test_paint_undo_and_save(page):
    before = number(page, 'area')
    page.locator('[data-tool=brush]').click()
    drag(page, '.carvana-explorer canvas', (.1, .1), (.3, .1))
    painted = number(page, 'area')
    assert painted != before
    page.keyboard.press('Control+z')
    assert number(page, 'area') == before
    page.keyboard.press('Control+Shift+z')
    assert number(page, 'area') == painted
    page.keyboard.press('Control+z')
    page.locator('[data-do=redo]').click()
    assert number(page, 'area') == painted
    with page.expect_download() as download: page.locator('[data-do=correction]').click()
    assert download.value.suggested_filename.endswith('_02_corrected_OUT.png')
    mask = read_mask(download.value.path())
    assert f'{mask.sum():,}' == painted.split()[0] and mask.shape == (320, 480)
    assert mask[32, 60:130].all()
    page.locator('[data-tool=eraser]').click()
    drag(page, '.carvana-explorer canvas', (.1, .1), (.3, .1))
    with page.expect_download() as download: page.locator('[data-do=cutout]').click()
    cut = np.array(Image.open(download.value.path()))
    assert cut.shape == (320, 480, 4) and f'{(cut[..., 3] > 0).sum():,}' == number(page, 'area').split()[0]
    assert not cut[32, 60:130, 3].any()


def test_strokes_of_two_photos_with_one_name(browser, folder, tmp_path):
    "front.jpg of one folder and of another"
    photos = sorted((folder/'train').iterdir())[:2]
    for name, photo in zip('ab', photos):
        (tmp_path/name).mkdir()
        shutil.copy(photo, tmp_path/name/'front.jpg')
    explorer = MaskExplorer([tmp_path/'a/front.jpg', tmp_path/'b/front.jpg'], scale=.25, device='cpu')
    page = browser.new_page()
    page.goto(explorer.save(tmp_path/'two.html').as_uri())
    page.wait_for_function("explorer.picture?.frame.index == 0")
    page.evaluate("explorer.set('index', 1)")
    page.wait_for_function("explorer.picture.frame.index == 1")
    before = number(page, 'area')
    page.evaluate("explorer.set('index', 0)")
    page.wait_for_function("explorer.picture.frame.index == 0")
    page.locator('[data-tool=brush]').click()
    drag(page, '.carvana-explorer canvas', (.1, .1), (.3, .1))
    page.evaluate("explorer.set('index', 1)")
    page.wait_for_function("explorer.picture.frame.index == 1")
    assert number(page, 'area') == before
    page.close()


def test_strokes_stay_with_their_photo(page):
    page.locator('[data-tool=eraser]').click()
    drag(page, '.carvana-explorer canvas', (.3, .6), (.6, .6))
    painted = number(page, 'area')
    page.locator('[data-do=next]').click()
    page.wait_for_function("explorer.picture.frame.index == 2")
    page.locator('[data-do=previous]').click()
    page.wait_for_function("explorer.picture.frame.index == 1")
    page.wait_for_timeout(100)
    assert number(page, 'area') == painted


def test_everything_has_a_name(page):
    nameless = page.evaluate('''() => [...document.querySelectorAll('.carvana-explorer :is(button, input, select, canvas, [role])')]
        .filter(n => !(n.getAttribute('aria-label') || n.textContent.trim() || n.closest('label')?.textContent.trim() || n.matches('[role=status]')))
        .map(n => n.outerHTML)''')
    assert not nameless
    label = page.locator('.carvana-explorer canvas').get_attribute('aria-label')
    assert label.startswith('e2902398994c_02.jpg: Overlay. Dice 0.') and '% car at threshold 0.500' in label


RATES = 'RateExplorer(10 ** np.linspace(-4, 0, 41), [*np.linspace(1, .5, 31), *np.linspace(.6, 9, 10)], dict(valley=3e-3))'


def test_a_learning_rate_is_dragged_stepped_and_suggested(browser, tmp_path):
    eval(RATES).save(tmp_path/'rates.html')
    with opened(browser, tmp_path/'rates.html', '[data-number=slope]') as page:
        rate = lambda: page.evaluate("explorer.model.get('rate')")
        assert rate() == 3e-3 and number(page, 'rate') == '0.00300'
        drag(page, '.plot', (.3, .5), (.5, .5))
        assert rate() == pytest.approx(1e-2, rel=.02) and float(number(page, 'rate')) == rate()
        page.keyboard.press('ArrowRight')
        assert rate() == pytest.approx(10 ** -1.9, rel=.01)
        drag(page, '.plot', (.5, .5), (1.1, .5))
        assert (rate(), number(page, 'loss'), page.locator('.plot').get_attribute('aria-valuenow')) == (1, '9.000', '1')
        page.locator('[data-do=valley]').click()
        assert rate() == 3e-3 and float(number(page, 'slope')) < 0


@pytest.mark.parametrize('width', (1500, 700, 360))
def test_it_fits_the_width(width, page):
    page.set_viewport_size(dict(width=width, height=900))
    page.wait_for_timeout(200)
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')


def test_a_full_size_photo_is_redrawn_while_dragging(browser, tmp_path):
    "Half of the frames in 50 ms and less, at 1918x1280; a moved photo is drawn whole and takes longer"
    folder = write_studio(tmp_path/'big', seeds=[10_001], views=(2,), size=(1280, 1918))
    html = MaskExplorer(folder, device='cpu', other='heat').save(tmp_path/'big.html')
    page, faults = watched(browser)
    page.set_viewport_size(dict(width=1300, height=950))
    page.goto(html.as_uri())
    page.wait_for_selector('[data-number=edge]')
    page.wait_for_timeout(500)
    page.evaluate(COUNT_FRAMES)
    ms = {}
    for what, place, start, end in [('threshold', '.plot', (.1, .5), (.9, .5)), ('split', '.seam', (.5, .2), (8, .2)),
                                    ('photo', '.carvana-explorer canvas', (.6, .6), (.3, .4))]:
        page.evaluate('drawn.length = 0')
        drag(page, place, start, end, steps=60)
        ms[what] = np.array(page.evaluate('drawn'))
        if what == 'split': page.evaluate('explorer.zoomTo(1)')
    page.close()
    assert not faults
    for what, t in ms.items(): print(f'{what}: {len(t)} frames for 60 steps of the mouse, {np.median(t):.1f} ms (median), {np.percentile(t, 90):.1f} ms (90 %)')
    assert len(ms['threshold']) > 5 and np.median(ms['threshold']) < 50


CELLS = ["""
import ipywidgets
ipywidgets.Label('a kernel and widgets')
""", """
from carvana_unet.explorer import MaskExplorer
explorer = MaskExplorer('studio', model=['MODEL.pth', 'parts.pth', 'missing.pth'], scale=.25, index=1, device='cpu')
explorer
""", """
print(explorer.threshold)
"""]


@pytest.fixture(scope='module')
def lab(parts, tmp_path_factory):
    "JupyterLab on a free port, in a folder with a notebook and 16 photos, untouched by what is set up for this user"
    root = tmp_path_factory.mktemp('lab')
    write_studio(root/'studio', seeds=[10_001], size=(320, 480))
    shutil.copy(parts, root)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.strip()) for c in CELLS])
    nb.metadata.kernelspec = dict(name='python3', display_name='Python 3', language='python')
    nbformat.write(nb, root/'explore.ipynb')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k != 'CARVANA_PATH' and not k.startswith('JUPYTER')}
    env |= {f'JUPYTER_{k}_DIR': str(root/'.jupyter'/k) for k in ('CONFIG', 'DATA', 'RUNTIME')}
    env |= dict(JUPYTERLAB_SETTINGS_DIR=str(root/'.jupyter/settings'), JUPYTERLAB_WORKSPACES_DIR=str(root/'.jupyter/workspaces'),
                IPYTHONDIR=str(root/'.ipython'), JUPYTER_PREFER_ENV_PATH='1')
    words = ['-m', 'jupyterlab', '--no-browser', '--allow-root', f'--port={port}', '--ServerApp.port_retries=0', f'--ServerApp.root_dir={root}',
             '--IdentityProvider.token=explore', '--LabApp.expose_app_in_browser=True', '--LabApp.news_url=',
             '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    with open(root/'lab.log', 'w') as log: server = subprocess.Popen([sys.executable, *words], cwd=root, env=env, stdout=log, stderr=log)
    url = f'http://127.0.0.1:{port}'
    for _ in range(600):
        try: urllib.request.urlopen(f'{url}/api?token=explore'); break
        except OSError: time.sleep(.1)
        assert server.poll() is None, (root/'lab.log').read_text()
    yield url, root
    server.terminate()
    server.wait(30)


KERNEL = 'jupyterapp.shell.currentWidget.context.sessionContext.session.kernel'  # undefined on the way until it is there


def run_cells(page, url):
    """Run the notebook from its first cell to the explorer; raises the browser's `Error`

    JupyterLab says 'idle' before there is a kernel, and a cell run by then is lost. So the kernel has to be connected,
    and a small widget has to be drawn, before the explorer's turn."""
    page.goto(f'{url}/lab/tree/explore.ipynb?token=explore&reset', wait_until='commit')
    page.locator('.jp-Notebook .jp-Cell').first.wait_for()
    dialogs = page.locator('.jp-Dialog .jp-mod-accept')
    while dialogs.count(): dialogs.first.click()
    page.wait_for_function(f"(() => {{ try {{ return {KERNEL}.connectionStatus == 'connected' && {KERNEL}.status == 'idle' }} catch {{}} }})()")
    page.evaluate('jupyterapp.shell.currentWidget.content.activeCellIndex = 0')
    for seen in '.jp-OutputArea-output .widget-label', '[data-number=edge]':
        page.evaluate("() => { jupyterapp.commands.execute('notebook:run-cell-and-select-next') }")
        page.locator(seen).wait_for()


@pytest.fixture(scope='module')
def live(browser, lab):
    "The explorer in JupyterLab, its notebook run; an error of its own in the console is one too many"
    from playwright.sync_api import Error
    url, root = lab
    for attempt in 1, 2:
        context = browser.new_context(viewport=dict(width=1500, height=1100))
        context.set_default_timeout(240_000)  # a busy machine takes minutes for JupyterLab alone
        page, faults = watched(context)
        try: run_cells(page, url)
        except Error as e:
            failed = [f'JupyterLab, attempt {attempt}: {e}', 'the page:', page.evaluate('document.body?.innerText') or '', 'its console:', *faults,
                      'the end of lab.log:', (root/'lab.log').read_text()[-3000:]]
            print(*failed, sep='\n')
            context.close()
        else: break
    else: pytest.fail('\n'.join(failed), pytrace=False)
    yield page, root
    context.close()
    assert not [f for f in faults if 'explorer' in f or 'widget' in f.lower()], faults


def wait_for(page, text):
    "Until the explorer's line says so"
    page.wait_for_function(f"document.querySelector('.carvana-explorer .status').textContent.includes({text!r})", timeout=120_000)


def run_last(page, code):
    "What the kernel prints when the last cell is run with this code"
    cell = page.locator('.jp-Notebook .jp-CodeCell').last
    cell.locator('.cm-content').click()
    page.keyboard.press('Control+a')
    page.keyboard.insert_text(code)
    page.keyboard.press('Control+Enter')
    page.wait_for_function("document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status === 'idle'")
    page.wait_for_timeout(500)
    return cell.locator('.jp-OutputArea-output').last.inner_text().strip()


def test_live_threshold_reaches_python_and_back(live):
    page, _ = live
    before = number(page, 'dice')
    page.locator('.plot').scroll_into_view_if_needed()
    drag(page, '.plot', (.5, .5), (.8, .5))
    assert number(page, 'dice') != before
    t = float(page.locator('.threshold output').inner_text())
    page.wait_for_timeout(500)
    assert abs(float(run_last(page, 'print(explorer.threshold)')) - t) < .001
    run_last(page, 'explorer.threshold = 0.5; print(1)')
    assert number(page, 'dice') == before


@pytest.mark.parametrize('theme', ('JupyterLab Dark', 'JupyterLab Light'))
def test_live_numbers_have_room(theme, live):
    "JupyterLab's theme has rules for `dt` and `dd` of its own"
    page, _ = live
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
    page.wait_for_timeout(500)
    boxes = page.evaluate("""[...document.querySelectorAll('.carvana-explorer .numbers > *')].map(n => {
        const range = document.createRange();
        range.selectNodeContents(n);
        return [n.textContent, n.getBoundingClientRect().width, range.getBoundingClientRect().width, n.scrollWidth - n.clientWidth];
    })""")
    assert not [b for b in boxes if b[1] < 60 or b[2] > b[1] + 1 or b[3] > 1]
    canvas = page.locator('.carvana-explorer canvas')
    assert canvas.evaluate('c => c.width') == canvas.evaluate('c => Math.round(c.clientWidth * devicePixelRatio)') > 100
    if folder := os.environ.get('SCREENSHOTS'): page.screenshot(path=f'{folder}/{theme.replace(" ", "_")}.png')


def turn(page, setting, value):
    "Change a setting, wait for another expected Dice score, and return the one before"
    before, field = number(page, 'expected'), page.locator(f'[data-setting={setting}]')
    if isinstance(value, bool): field.set_checked(value)
    elif isinstance(value, str): field.select_option(value)
    else:
        field.fill(str(value))
        field.press('Enter')
    page.wait_for_function(f"document.querySelector('[data-number=expected]').textContent != '{before}'", timeout=120_000)
    return before


def test_live_settings_run_the_network(live):
    page, _ = live
    before = turn(page, 'scale', .2)
    turn(page, 'scale', .25)
    assert number(page, 'expected') == before
    for setting, value in [('squares', 'blended'), ('squares', 'hard-cut'), ('tta', True)]: turn(page, setting, value)
    assert 'squares' in number(page, 'uncertainty') and 'flip' in number(page, 'uncertainty')
    choose(page, 'view', 'disagreement')
    assert page.evaluate("document.querySelector('[data-number=ms]').textContent").startswith('read 0, network')
    for setting, value in [('squares', 'none'), ('tta', False)]: turn(page, setting, value)
    assert number(page, 'expected') == before


def test_live_space_turns_the_car(live):
    page, _ = live
    first = shown(page)
    page.evaluate("""() => {
        const name = document.querySelector('.carvana-explorer .name');
        window.seen = [];
        new MutationObserver(() => name.textContent !== seen.at(-1) && seen.push(name.textContent)).observe(name, {childList: true});
    }""")
    page.locator('.carvana-explorer canvas').focus()
    page.keyboard.press(' ')
    assert page.locator('[data-do=play]').inner_text() == 'Stop'
    page.wait_for_function('new Set(seen).size == 16', timeout=300_000)
    page.keyboard.press(' ')
    assert page.locator('[data-do=play]').inner_text() == 'Play'
    page.wait_for_function("document.querySelector('.carvana-explorer .wait').hidden")
    views = [int(name.split('.')[0][-2:]) for name in page.evaluate('seen')]
    assert views[:16] == [*range(3, 17), 1, 2] and (shown(page) == first).all() == (views[-1] == 2)
    page.wait_for_timeout(300)  # the widget tells Python with a delay
    assert run_last(page, 'print(explorer.index)') == str(views[-1] - 1)
    run_last(page, 'explorer.index = 1; print(1)')
    page.wait_for_function("document.querySelector('.carvana-explorer .name').textContent.includes('_02.jpg')")


def test_live_zoom_to_single_pixels(live):
    page, _ = live
    canvas = page.locator('.carvana-explorer canvas')
    canvas.scroll_into_view_if_needed()
    whole, top = shown(page), page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop")
    canvas.click()
    for _ in range(30): page.mouse.wheel(0, -300)
    page.wait_for_timeout(500)
    assert len(np.unique(shown(page).reshape(-1, 4), axis=0)) < 600  # few and large
    assert page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop") == top
    page.keyboard.press('0')
    assert (shown(page) == whole).all()


@pytest.mark.skipif(not find_spec('pydensecrf'), reason='needs pydensecrf')
def test_live_crf(live):
    page, _ = live
    before = turn(page, 'crf', True)
    assert number(page, 'changed').endswith(' px')
    choose(page, 'view', 'refinement')
    turn(page, 'bilateral_compat', 9)
    choose(page, 'view', 'overlay')
    turn(page, 'bilateral_compat', float(run_last(page, 'print(explorer.stages.base.bilateral_compat)')))
    turn(page, 'crf', False)
    assert number(page, 'expected') == before


def test_live_an_error_is_a_line(live):
    page, _ = live
    page.locator('[data-setting=model]').select_option('missing.pth')
    wait_for(page, 'missing.pth: no such model')
    assert page.locator('.status.error').count() == 1
    page.locator('[data-setting=model]').select_option('MODEL.pth')
    page.wait_for_function("document.querySelector('.carvana-explorer .status').textContent === ''", timeout=120_000)


def test_live_the_command_makes_the_saved_mask(live):
    page, root = live
    page.locator('[data-do=mask]').click()
    wait_for(page, '_02_OUT.png: written')
    saved = root/page.locator('.status').inner_text().removesuffix(': written')
    page.locator('[data-do=cli]').click()
    words = shlex.split(page.locator('.status').inner_text())
    subprocess.run([Path(sys.executable).parent/words[0], *words[1:], '-c', '-o', 'again.png'], cwd=root, check=True, timeout=300)
    assert (read_mask(root/'again.png') == read_mask(saved)).all()
    page.locator('[data-do=python]').click()
    call = page.locator('.status').inner_text()
    code = f"from carvana_unet import Predictor; from carvana_unet.photos import read_mask; print(({call} == read_mask('again.png')).all())"
    assert run_last(page, code) == 'True'


def test_live_classes_are_saved_as_the_command_does(live):
    page, root = live
    turn(page, 'model', 'parts.pth')
    choose(page, 'view', 'classes')
    page.locator('.legend .swatch').nth(2).wait_for()
    page.locator('[data-do=mask]').click()
    wait_for(page, 'OUT.png: written')  # with a number: another test saved the first
    saved = read_classes(root/page.locator('.status').inner_text().removesuffix(': written'))
    page.locator('[data-do=cli]').click()
    words = shlex.split(page.locator('.status').inner_text())
    subprocess.run([Path(sys.executable).parent/words[0], *words[1:], '-c', '-o', 'classes.png'], cwd=root, check=True, timeout=300)
    assert (read_classes(root/'classes.png') == saved).all() and len(np.unique(saved)) == 4
    turn(page, 'model', 'MODEL.pth')
    assert page.locator('[data-key=view]').input_value() == 'overlay'


def test_live_sort_asks_for_every_photo(live):
    page, _ = live
    choose(page, 'sort', 'dice')
    scores = "[...document.querySelectorAll('.thumb span')].map(s => s.textContent)"
    page.wait_for_function(f"{scores}.every((s, i, all) => s.startsWith('Dice 0.') && (!i || s >= all[i - 1]))", timeout=120_000)
    assert len(page.evaluate(scores)) == 16
    choose(page, 'sort', 'name')


def test_live_a_correction_is_a_new_file(live):
    page, root = live
    before = number(page, 'area')
    page.locator('[data-tool=brush]').click()
    page.locator('.stage').scroll_into_view_if_needed()
    drag(page, '.carvana-explorer canvas', (.1, .1), (.3, .1))
    painted = number(page, 'area')
    assert painted != before
    page.keyboard.press('Control+z')
    assert number(page, 'area') == before
    page.locator('[data-do=redo]').click()
    assert number(page, 'area') == painted
    page.locator('[data-do=correction]').click()
    wait_for(page, '_02_mask_corrected_OUT.png: written')
    new, = (root/'studio/train_masks').glob('*_corrected_OUT.png')
    assert read_mask(new)[32, 60:130].all() and f'{read_mask(new).sum():,}' == painted.split()[0]
    assert (read_mask(next((root/'studio/train_masks').glob('*_02_mask.gif'))) == studio_photo(10_001, 2, size=(320, 480))[1]).all()
    page.locator('[data-do=cutout]').click()
    wait_for(page, '_02_cutout_OUT.png: written')
    cut = np.array(Image.open(next((root/'studio/train').glob('*_02_cutout_OUT.png'))))
    assert ((cut[..., 3] > 0) == read_mask(new)).all()
    page.locator('[data-do=undo]').click()
    page.locator('[data-tool=move]').click()


def test_live_a_learning_rate_reaches_python(live):
    page, _ = live
    run_last(page, f'import numpy as np; from carvana_unet.explorer import RateExplorer; rates = {RATES}; display(rates)')
    page.locator('.rates [data-number=rate]').wait_for()
    page.locator('.rates .plot').scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    drag(page, '.rates .plot', (.3, .5), (.5, .5))
    seen = float(number(page, 'rate'))
    page.wait_for_timeout(500)
    assert float(run_last(page, 'print(rates.rate)')) == seen == pytest.approx(1e-2, rel=.02)
