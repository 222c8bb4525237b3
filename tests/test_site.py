"""The pages of the site: nbdev's own half of `make docs`, then pandoc, which is at the heart of Quarto, the other half.

The pages that pandoc makes stay in `_proc/_pages`, to be looked at in a browser."""
import ast, inspect, json, os, re, shutil, subprocess, sys
from dataclasses import is_dataclass
from html.parser import HTMLParser
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from urllib.parse import unquote

import pypandoc, pytest, yaml
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from readme import ROOT
from test_explorer import CHROMIUM, barriers, browser, watched  # noqa: F401

CONFIG = get_config(path=ROOT)
PROC = ROOT/'_proc'
PAGES = PROC/'_pages'
NOTEBOOKS = sorted(str(Path(p).relative_to(ROOT/'nbs')) for p in nbglob(ROOT/'nbs'))
SYMBOL = re.compile(r'### (\S+) {#(\S+)}\n\n(?:```python\n(.*?)\n```)?', re.S)   # as a page shows it: name, anchor, signature


def told(x): return x if isinstance(x, str) else ''.join(x)


def option(source, name):
    "What a cell says in a line `#| name: value`"
    found = re.search(rf'^#\| {name}:(.*)$', source, re.M)
    return yaml.safe_load(found[1]) if found else None


def markdown(notebook):
    "A processed notebook as Quarto gives it to pandoc, as far as pandoc alone understands it"
    parts = []
    for cell in notebook['cells']:
        source = told(cell['source'])
        if cell['cell_type'] == 'markdown': parts.append(source)
        if cell['cell_type'] != 'code': continue
        if option(source, 'echo') is not False: parts.append(f'````python\n{source}\n````')
        for output in cell.get('outputs', []):
            data = output.get('data', {})
            image = next((kind for kind in data if kind.startswith('image/')), None)
            if 'text/markdown' in data: parts.append(told(data['text/markdown']))
            elif image: parts.append(f"![](data:{image};base64,{told(data[image]).strip()}){{fig-alt={json.dumps(option(source, 'fig-alt') or '')}}}")
            else: parts.append(f"````\n{told(output.get('text') or data.get('text/plain', ''))}\n````")
    return '\n\n'.join(parts)


def pandoc(name):
    "One page, complete in itself; pandoc fails when a picture is missing"
    notebook = json.loads((PROC/name).read_text(encoding='utf-8'))
    page, about = (PAGES/name).with_suffix('.html'), front_matter(notebook)
    page.parent.mkdir(parents=True, exist_ok=True)
    options = ['-s', '--embed-resources', '--mathml', '--fail-if-warnings', f'--css={PROC}/styles.css', '-Vdocument-css', '-Vmaxwidth=56em', '-Vlang=en']
    options += [f'-Mtitle={about["title"]}', f'-Msubtitle={about["description"]}']
    pypandoc.convert_text(markdown(notebook).replace('{fig-alt=', '{alt='), 'html5', format='markdown', outputfile=str(page), extra_args=options, cworkdir=str((PROC/name).parent))
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


def project():
    "What Quarto is told to run before it renders, and which folders to copy"
    return yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))['project']


@pytest.fixture(scope='module')
def notebooks():
    "What nbdev makes of each notebook: definitions run, in one process, which stops at the first error"
    code = 'from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True)'
    env = os.environ | dict(PYTHONPATH=str(ROOT/'nbs'))
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert r.returncode == 0, r.stderr
    env['PATH'] = f'{Path(sys.executable).parent}:{env["PATH"]}'
    r = subprocess.run(project()['pre-render'].split(), cwd=PROC, env=env, capture_output=True, text=True, timeout=900)
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
    "All of them are relative; those that are made of names lead to the heading of a symbol"
    made = {str(Path(name).with_name(front_matter(nb)['output-file'])): name for name, nb in notebooks.items()}
    lost = []
    for name, page in pages.items():
        for link in page.links:
            file, _, anchor = unquote(link).partition('#')
            if file.startswith(CONFIG.doc_host): lost.append((name, link))
            if re.match(r'\w+:', file): continue
            target = os.path.normpath(Path(name).parent/file) if file else name
            target = made.get(target, target)
            if target.split('/')[0] in project()['resources'] and (PROC/target).is_file(): continue
            if target not in pages or anchor and anchor not in pages[target].ids: lost.append((name, link))
    assert not lost


def symbols(notebooks):
    "Page, module, name and signature of each symbol that a page shows"
    for page, nb in notebooks.items():
        for output in outputs(nb):
            for name, anchor, call in SYMBOL.findall(told(output.get('data', {}).get('text/markdown', ''))):
                yield page, f'carvana_unet.{anchor.removesuffix("." + name)}', name, call


def test_every_signature_is_the_functions_own(notebooks):
    "Names, order, kinds and defaults, as Python has them; a class that takes what its parent takes shows none"
    wrong, seen = [], set()
    for page, module, name, call in symbols(notebooks):
        module = import_module(module)
        sym = attrgetter(name)(module)
        seen.add((module.__name__, name))
        if isinstance(sym, type) and '__init__' not in vars(sym) and not inspect.get_annotations(sym): want = {}
        else: want = {} if isinstance(sym, property) else dict(inspect.signature(sym).parameters)
        if is_dataclass(sym) and is_dataclass(sym.__base__): want = {n: p for n, p in want.items() if n in vars(sym)['__annotations__']}  # its own fields
        want.pop('self', None)
        scope = {}
        if call: exec(f"def f{call[call.index('('):]}: pass", dict(vars(module)), scope)
        have = dict(inspect.signature(scope['f']).parameters) if call else {}
        describe = lambda ps: [(p.name, p.kind, repr(p.default)) for p in ps.values()]
        want = {n: p.replace(default=have[n].default) if n in have and repr(p.default) == '<factory>' else p for n, p in want.items()}
        if describe(have) != describe(want): wrong.append((page, name, call))
    assert not wrong
    missing = {(m, n) for m in public_modules() for n in import_module(m).__all__ if inspect.isfunction(s := getattr(import_module(m), n)) and s.__module__ == m and '<locals>' not in s.__qualname__} - seen
    assert not missing


def public_modules():
    from carvana_unet._modidx import d
    return [m for m, found in d['syms'].items() if found]


def test_a_name_links_to_what_it_means_on_its_page(notebooks):
    "`train` is a function in two modules, `car` and `check` are words as well"
    for page, nb in notebooks.items():
        for text in [told(c['source']) for c in nb['cells'] if c['cell_type'] == 'markdown']:
            for name, file, anchor in re.findall(r'\[`([\w.]+)(?:\(\))?`\]\(([\w/.]+\.html)#([\w.]+)\)', text):
                assert anchor.endswith('.' + name.split('.')[-1]) or name.startswith(anchor.rpartition('.')[2] + '.'), (page, name, anchor)
                assert not file.startswith('http')


def test_every_parameter_has_its_line(notebooks):
    "Of each function that a page shows: its name and what it is"
    for page, nb in notebooks.items():
        for output in outputs(nb):
            text = told(output.get('data', {}).get('text/markdown', ''))
            for name, _, call in SYMBOL.findall(text):
                for parameter in [*ast.parse(f"def f{call[call.index('('):]}: pass").body[0].args.args] if call else []:
                    assert re.search(rf'^`{parameter.arg}`{{\.name}}.*\n:   \S', text, re.M), (page, name, parameter.arg)


def test_signatures_fit_the_page(notebooks):
    assert not [(page, name) for page, _, name, call in symbols(notebooks) if max(map(len, call.split('\n'))) > 100]


def test_no_list_becomes_prose():
    "Quarto needs a blank line before a list, JupyterLab does not"
    item, lost = re.compile(r'\s*([-*+]|\d+[.)])\s'), []
    for name in NOTEBOOKS:
        for cell in json.loads((ROOT/'nbs'/name).read_text(encoding='utf-8'))['cells']:
            if cell['cell_type'] != 'markdown': continue
            lines = re.sub(r'```.*?```', '', ''.join(cell['source']), flags=re.S).split('\n')
            lost += [(name, line) for before, line in zip(lines, lines[1:]) if item.match(line) and before.strip() and not item.match(before) and not before.startswith((' ', '#'))]
    assert not lost


def test_no_result_is_lost_beside_an_image(notebooks):
    "Quarto drops a result in brackets where a cell shows an image"
    lost = []
    for name, nb in notebooks.items():
        for cell in nb['cells']:
            found = cell.get('outputs', [])
            if any(kind.startswith('image/') for o in found for kind in o.get('data', {})):
                lost += [name for o in found if re.fullmatch(r'[(\[].*[)\]]', told(o.get('data', {}).get('text/plain', '')))]
    assert not lost


def test_the_page_of_the_commands_begins_with_all_of_them():
    first = ''.join(json.loads((ROOT/'nbs/00_commands.ipynb').read_text(encoding='utf-8'))['cells'][1]['source'])
    assert {*re.findall(r'^\| `([\w-]+)', first, re.M)} == {*re.findall(r'([\w-]+)=carvana_unet', CONFIG.console_scripts)}


def test_no_output_is_html(notebooks):
    "For one, Quarto loads jQuery and RequireJS from elsewhere"
    assert not [name for name, nb in notebooks.items() for o in outputs(nb) if {'text/html', 'application/javascript'} & {*o.get('data', {})}]


def test_every_image_has_alt_text():
    "One that a cell draws in the line `#| fig-alt`, one of a file in its brackets"
    lacking = []
    for name in NOTEBOOKS:
        for cell in json.loads((ROOT/'nbs'/name).read_text(encoding='utf-8'))['cells']:
            source = ''.join(cell['source'])
            drawn = any(kind.startswith('image/') for o in cell.get('outputs', []) for kind in o.get('data', {}))
            if drawn and len(option(source, 'fig-alt') or '') < 20: lacking.append((name, cell['id']))
            if cell['cell_type'] == 'markdown': lacking += [(name, alt) for alt in re.findall(r'!\[(.*?)\]\(', source) if len(alt) < 20]
    assert not lacking


def test_columns_of_numbers_end_at_the_right(notebooks):
    text = '\n'.join(told(o.get('data', {}).get('text/markdown', '')) for o in outputs(notebooks['benchmarks.ipynb']))
    assert '---:' in text


def test_the_explorers_need_nothing_else(notebooks):
    "Each widget has become a page of its own, and none that had to be fetched is left"
    frames = {name: [t for o in outputs(nb) if '<iframe' in (t := told(o.get('data', {}).get('text/markdown', '')))] for name, nb in notebooks.items()}
    assert [len(frames[f'{name}.ipynb']) for name in ('index', '14_explorer')] == [1, 2]
    assert all(len(f) < 400_000 for found in frames.values() for f in found)
    for nb in notebooks.values():
        assert 'widgets' not in nb['metadata']
        assert not [o for o in outputs(nb) if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})]


def test_the_footer_has_version_and_licence():
    subprocess.run([sys.executable, 'nbs/_pages.py'], cwd=ROOT, check=True)
    footer = yaml.safe_load((ROOT/'nbs/site.yml').read_text())['website']['page-footer']
    assert footer == dict(left=f'{CONFIG.title} {CONFIG.version}, Apache License 2.0', right=f'[Repository]({CONFIG.git_url})')


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


@pytest.mark.skipif(not CHROMIUM, reason='needs Chromium: apt-get install chromium')
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('name', ['index', '03_squares', 'tutorials/predict_and_refine', '14_explorer'])
def test_pages_have_no_barriers(name, scheme, browser, pages):
    "The landing page, a reference page, a tutorial and the explorer's, with the explorers on them in the colours of the site"
    context = browser.new_context(viewport=dict(width=1440, height=900), offline=True)
    page, faults = watched(context)
    page.set_default_timeout(120_000)
    page.goto((PAGES/name).with_suffix('.html').as_uri())
    page.evaluate("scheme => { document.body.className = 'quarto-' + scheme; document.documentElement.style.colorScheme = scheme; document.documentElement.style.background = scheme === 'dark' ? '#222' : '#fff'; document.body.style.color = scheme === 'dark' ? '#fff' : '#222' }", scheme)
    for frame in page.locator('iframe').all():
        frame.scroll_into_view_if_needed()
        frame.content_frame.locator('.numbers dd').first.wait_for()
        assert frame.content_frame.locator('html').evaluate('e => getComputedStyle(e).colorScheme') == scheme
    skipped = ('link-in-text-block',) if scheme == 'dark' else ()  # pandoc's own style, which Quarto's theme replaces
    assert not [x for x in barriers(page) if not x.startswith(skipped or ('-',))]
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
