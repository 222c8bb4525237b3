"""The pages of the site: nbdev's own half of `make docs`, then pandoc, which is at the heart of Quarto, the other half.

The pages that pandoc makes stay in `_proc/_pages`, to be looked at in a browser."""
import json, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pypandoc, pytest, yaml
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from readme import ROOT
from test_explorer import CHROMIUM, browser, watched  # noqa: F401

CONFIG = get_config(path=ROOT)
PROC = ROOT/'_proc'
PAGES = PROC/'_pages'
NOTEBOOKS = sorted(str(Path(p).relative_to(ROOT/'nbs')) for p in nbglob(ROOT/'nbs'))


def plain(notebook):
    "A processed notebook with what Quarto understands and pandoc does not: cells without echo, and Markdown that is an output"
    cells = []
    for cell in notebook['cells']:
        if cell['cell_type'] != 'code' or '#| echo: false\n' not in cell['source']: cells.append(cell | ({'outputs': []} if 'outputs' in cell else {}))
        for output in cell.get('outputs', []):
            text = output.get('data', {}).get('text/markdown')
            if text: cells.append(dict(cell_type='markdown', metadata={}, source=text))
            else: cells.append(dict(cell_type='code', execution_count=0, metadata={}, source='', outputs=[output | dict(execution_count=0)]))  # null is nothing that pandoc knows
    return notebook | dict(cells=cells)


def pandoc(name):
    "One page, complete in itself; pandoc fails when a picture is missing"
    notebook = json.loads((PROC/name).read_text(encoding='utf-8'))
    page, about = (PAGES/name).with_suffix('.html'), front_matter(notebook)
    page.parent.mkdir(parents=True, exist_ok=True)
    options = ['-s', '--embed-resources', '--mathml', '--fail-if-warnings', f'--css={PROC}/styles.css', '-Vdocument-css', '-Vmaxwidth=56em']
    options += [f'-Mtitle={about["title"]}', f'-Msubtitle={about["description"]}']
    pypandoc.convert_text(json.dumps(plain(notebook)), 'html5', format='ipynb-gfm_auto_identifiers+link_attributes',
                          outputfile=str(page), extra_args=options, cworkdir=str((PROC/name).parent))
    return page.read_text(encoding='utf-8')


def front_matter(notebook): return yaml.safe_load(''.join(notebook['cells'][0]['source']).strip('-\n'))


class Found(HTMLParser):
    "The ids and the links of a page"
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if 'id' in attrs: self.ids.add(attrs['id'])
        if tag == 'a' and 'href' in attrs: self.links.append(attrs['href'])


@pytest.fixture(scope='module')
def notebooks():
    "What nbdev makes of each notebook: definitions run, in one process, which stops at the first error"
    code = 'from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True)'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert r.returncode == 0, r.stderr
    return {name: json.loads((PROC/name).read_text(encoding='utf-8')) for name in NOTEBOOKS}


@pytest.fixture(scope='module')
def pages(notebooks): return {name: Found(pandoc(name)) for name in notebooks}


def outputs(notebook): return [o for cell in notebook['cells'] for o in cell.get('outputs', [])]


def test_no_cell_of_a_page_failed(notebooks):
    assert not [name for name, nb in notebooks.items() for o in outputs(nb) if o['output_type'] == 'error']


def test_no_text_is_lost():
    "nbdev makes the title of a page from the first cell, and drops the rest of it"
    for name in NOTEBOOKS:
        first = json.loads((ROOT/'nbs'/name).read_text(encoding='utf-8'))['cells'][0]
        assert re.fullmatch(r'# .+\n\n?> .+', ''.join(first['source']).strip()), f'{name}: only title and summary belong into the first cell'


def test_every_link_leads_somewhere(notebooks, pages):
    "Those between the pages, and those that nbdev makes of names, which have the address of the site"
    home = CONFIG.doc_host + CONFIG.doc_baseurl + '/'
    made = {str(Path(name).with_name(front_matter(nb)['output-file'])): name for name, nb in notebooks.items()}
    lost = []
    for name, page in pages.items():
        for link in page.links:
            file, _, anchor = unquote(link).partition('#')
            if file.startswith(home): target = made.get(file.removeprefix(home))
            elif re.match(r'\w+:', file): continue
            else: target = str((ROOT/'nbs'/name).parent.joinpath(file).resolve().relative_to(ROOT/'nbs')) if file else name
            if target not in pages or anchor and anchor not in pages[target].ids: lost.append((name, link))
    assert not lost


def test_every_parameter_has_its_line(notebooks):
    "Of a function that a page shows, in a table, with its comment"
    text = ''.join(o['data']['text/markdown'] if isinstance(o['data']['text/markdown'], str) else ''.join(o['data']['text/markdown'])
                   for o in outputs(notebooks['00_photos.ipynb']) if 'text/markdown' in o.get('data', {}))
    assert '| <code>photo</code> | `np.ndarray` | uint8 (H, W, 3) |' in text
    assert '```python\nread_photo(' in text


def test_the_explorers_need_nothing_else(notebooks):
    "Each widget has become a page of its own, and none that had to be fetched is left"
    frames = {name: [o['data']['text/html'] for o in outputs(nb) if '<iframe' in ''.join(o.get('data', {}).get('text/html', ''))] for name, nb in notebooks.items()}
    assert [len(frames[f'{name}.ipynb']) for name in ('index', '14_explorer')] == [1, 2]
    assert all(len(''.join(f)) < 400_000 for found in frames.values() for f in found)
    for nb in notebooks.values():
        assert 'widgets' not in nb['metadata']
        assert not [o for o in outputs(nb) if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})]


@pytest.mark.skipif(not CHROMIUM, reason='needs Chromium: apt-get install chromium')
@pytest.mark.parametrize('width', [1400, 400])
def test_the_landing_page_without_a_network(width, browser, pages):
    "It fits the screen, asks nothing of elsewhere, and its explorer follows the reader"
    context = browser.new_context(viewport=dict(width=width, height=900), offline=True)
    page, faults = watched(context)
    page.set_default_timeout(120_000)
    page.on('request', lambda r: r.url.startswith(('file:', 'blob:', 'data:', 'about:')) or faults.append(r.url))
    page.goto((PAGES/'index.html').as_uri())
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    page.locator('iframe').scroll_into_view_if_needed()
    explorer = page.frame_locator('iframe')
    explorer.locator('[data-number=edge]').wait_for()
    before = explorer.locator('[data-number=dice]').inner_text()
    explorer.locator('.threshold input').fill('0.9')
    page.wait_for_function("before => document.querySelector('iframe').contentDocument.querySelector('[data-number=dice]').innerText != before", arg=before)
    context.close()
    assert not faults


def test_make_docs_says_where_quarto_is():
    r = subprocess.run([shutil.which('make'), 'docs'], cwd=ROOT, env={'PATH': ''}, capture_output=True, text=True)
    assert r.returncode and 'get it from https://quarto.org' in r.stderr.splitlines()[0]


def test_the_sidebar_names_every_page_once():
    def files(x):
        if isinstance(x, dict): return files(x.get('contents', [])) + files(x.get('href', []))
        return [x] if isinstance(x, str) else [f for y in x for f in files(y)]
    site = yaml.safe_load((ROOT/'nbs/_quarto.yml').read_text())['website']
    assert (ROOT/'nbs/_quarto.yml').readlink() == Path('../_quarto.yml')
    listed = files(site['sidebar'])
    assert sorted(listed) == NOTEBOOKS
    assert {*files(site['navbar']['left'])} <= {*listed}
