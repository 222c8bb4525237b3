"""What nbdev and Quarto leave to do when a notebook becomes a page of the site; `settings.ini` names `Pages` in `procs`.

`python nbs/_pages.py` writes `nbs/site.yml`: the part of the site's configuration that `settings.ini` knows."""
import ast, html, inspect, io, os, re, tempfile, textwrap, tokenize
from importlib import import_module
from itertools import takewhile
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from execnb.shell import CaptureShell
from nbdev.config import get_config

WIDTH = 76    # characters of a signature on one line; a longer one has a line for each parameter
QUOTED = re.compile(r'(?<!\[)`([A-Za-z][\w.]*)(\(\))?`')     # a public name in backticks that is not a link yet
SETUP = re.compile(r'import |from \S+ import |plt\.rcParams|tmp = |os\.chdir')
NUMBER = re.compile(r'[-+±]?[\d,]*\.?\d+( ± [\d.]+)?( ?(%|s|ms|h|min|px|kB|MB|MiB|GB|GiB))?|–|')
FRAME = '''<iframe title="Mask explorer" loading="lazy" style="width: 100%%; height: 800px; border: 0" srcdoc="%s" onload="
const inside = this.contentDocument, dress = () => inside.documentElement.style.colorScheme = document.body.classList.contains('quarto-dark') ? 'dark' : 'light';
dress(); new MutationObserver(dress).observe(document.body, {attributes: true, attributeFilter: ['class']});
new ResizeObserver(() => this.style.height = inside.body.scrollHeight + 'px').observe(inside.body)"></iframe>'''


class Parameter(NamedTuple):
    "What the source says of a parameter"
    name: str       # with the stars of `*args` and `**kwargs`; '*' and '/' stand alone; 'Returns' for the last
    type: str       # annotation, '' if there is none
    default: str    # expression, '' if there is none
    comment: str    # what follows the # on its line, '' if nothing does


def parameters(
    sym: Any,               # function, method, property or class of this package
) -> list[Parameter]:       # in order, without `self`; of a class those of `__init__`, or else its fields
    "The parameters as they are written: Python itself keeps neither comments nor the text of a default"
    source = textwrap.dedent(inspect.getsource(getattr(sym, 'fget', sym)))
    comments = {t.start[0]: t.string[1:].strip() for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
    node = ast.parse(source).body[0]
    text = lambda part: ast.unparse(part) if part else ''
    made = lambda text: re.sub(r'field\(default_factory=(?:lambda: (.+)|(.+))\)', lambda m: m[1] or f'{m[2]}()', text)
    def row(name, of, type, default=None):
        return Parameter(name, text(type), made(text(default)), comments.get((default or of).end_lineno, ''))
    if isinstance(node, ast.ClassDef):
        init = [n for n in node.body if getattr(n, 'name', '') == '__init__']
        if not init: return [row(n.target.id, n, n.annotation, n.value) for n in node.body if isinstance(n, ast.AnnAssign)]
        node = init[0]
    a = node.args
    plain, star = a.posonlyargs + a.args, [row(f'*{a.vararg.arg}', a.vararg, a.vararg.annotation)] if a.vararg else []
    defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
    rows = [row(arg.arg, arg, arg.annotation, default) for arg, default in zip(plain, defaults)]
    if a.posonlyargs: rows.insert(len(a.posonlyargs), Parameter('/', '', '', ''))
    if a.kwonlyargs and not star: star = [Parameter('*', '', '', '')]
    rows += star + [row(arg.arg, arg, arg.annotation, default) for arg, default in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg and (to := getattr(sym, '__delwrap__', None)):   # fastcore's `delegates`
        if not a.kwonlyargs and not a.vararg: rows.append(Parameter('*', '', '', ''))
        rows += [r for r in parameters(to) if r.name in inspect.signature(sym).parameters and r.name not in {x.name for x in rows}]
    elif a.kwarg: rows.append(row(f'**{a.kwarg.arg}', a.kwarg, a.kwarg.annotation))
    if node.returns: rows.append(row('Returns', node.returns, node.returns))
    return [r for r in rows if r.name != 'self']


def signature(
    name: str,              # shown
    rows: list[Parameter],  # from `parameters`
) -> str:                   # '' if there are no parameters
    "How it is called, on one line if that is short"
    words = [r.name + f'={r.default}' * bool(r.default) for r in rows if r.name != 'Returns']
    line = f"{name}({', '.join(words)})"
    return (line if len(line) <= WIDTH else f'{name}(\n    ' + ',\n    '.join(words) + ',\n)') if words else ''


def place(
    sym: Any,                           # function or class
) -> tuple[str, str, str] | None:       # page, anchor and file; None: it is not of this package
    "Where the site shows a symbol: a method that its class defines is a part of the class"
    from carvana_unet._modidx import d
    sym = getattr(sym, 'fget', None) or getattr(sym, 'func', None) or sym
    module, name = getattr(sym, '__module__', None), getattr(sym, '__qualname__', '')
    found = d['syms'].get(module, {}).get(f'{module}.{name}')
    if not found: return None
    if '.' in name and inspect.getsource(sym).startswith(' '): name = name.rpartition('.')[0]
    return found[0].partition('#')[0], f"{module.partition('.')[2]}.{name}", found[1]


def linked(
    text: str,      # Markdown
    names: dict,    # what a name means on this page
    page: str,      # this page, as `place` names it
) -> str:
    "Links for the names in backticks that mean a symbol of this package here"
    def link(m):
        try: found = place(attrgetter(m[1])(SimpleNamespace(**names)))
        except AttributeError: found = None
        return f'[{m[0]}]({os.path.relpath(found[0], Path(page).parent)}#{found[1]})' if found else m[0]
    lines, fenced = text.split('\n'), False
    for i, line in enumerate(lines):
        if line.lstrip().startswith('```'): fenced = not fenced
        elif not fenced and not line.startswith(('#', '    ')): lines[i] = QUOTED.sub(link, line)
    return '\n'.join(lines)


def entry(
    sym: Any,       # function, method, property or class of this package
    name: str,      # shown
    names: dict,    # what a name means on this page
) -> str:           # Markdown
    "What a page says of a symbol: heading, link to the source, signature, summary, and a line for each parameter"
    page, anchor, file = place(sym)
    rows, config = parameters(sym), get_config()
    line = inspect.getsourcelines(getattr(sym, 'fget', None) or sym)[1]
    names = {k: v for k, v in names.items() if k not in {r.name.strip('*') for r in rows}}
    parts = ['---', f'[source]({config.git_url}/blob/{config.branch}/{file}#L{line}){{.source-link}}', f'### {name} {{#{anchor}}}']
    if call := signature(name, rows): parts.append(f'```python\n{call}\n```')
    parts.append(linked(inspect.getdoc(sym) or '', names, page))
    items = []
    for r in rows:
        if not r.type and not r.comment: continue
        title = r.name if r.name == 'Returns' else f'`{r.name}`{{.name}}'
        items.append(f"{title}{f' `{r.type}`{{.type}}' * bool(r.type)}\n:   {linked(r.comment, names, page) or '&nbsp;'}")
    if items: parts += ['::: {.parameters}', *items, ':::']
    return '\n\n'.join(filter(None, parts)) + '\n'


def index() -> str: # Markdown
    "The functions and classes of each module and the page that shows them, module by module"
    from carvana_unet._modidx import d
    order = sorted(get_config().nbs_path.glob('**/[0-9]*.ipynb'), key=lambda p: (len(p.parts), p))
    text = ''
    for module in sorted(filter(d['syms'].get, d['syms']), key=lambda m: [p.stem.split('_', 1)[1] for p in order].index(m.rpartition('.')[2])):
        public = vars(import_module(module))
        own = sorted(n for n in public.get('__all__', []) if (at := place(public[n])) and at[1] == f"{module.partition('.')[2]}.{n}")
        if not own: continue
        links = ('[`{}`]({}#{})'.format(n, *place(public[n])) for n in own)
        table = ''.join(f'| {link} | {inspect.getdoc(public[n]).splitlines()[0]} |\n' for n, link in zip(own, links))
        text += f'\n## {module}\n\n::: {{.names}}\n\n| name | what it is |\n|---|------|\n{table}\n:::\n'
    return text


def aligned(
    text: str,  # Markdown
) -> str:
    "Columns of numbers in its tables end at the right"
    lines = text.split('\n')
    split = lambda x: [c.strip() for c in re.split(r'(?<!\\)\|', x.strip())[1:-1]]
    for i, line in enumerate(lines):
        if not re.fullmatch(r'\|[\s:|-]*--[\s:|-]*\|', line.strip()): continue
        rows = [split(x) for x in takewhile(lambda x: x.strip().startswith('|'), lines[i + 1:])]
        numeric = [any(c) and all(NUMBER.fullmatch(x.strip('*` ')) for x in c) for c in zip(*rows)]
        lines[i] = '|' + '|'.join(dash.strip(':') + ':' if n else dash for dash, n in zip(split(line), numeric)) + '|'
    return '\n'.join(lines)


def framed(
    explorer: Any,      # `MaskExplorer` or `RateExplorer`
    size: int = 480,    # longer side of the photos kept, pixels
) -> str:               # HTML
    "The explorer's saved page as a part of another page: it needs neither a kernel nor a network"
    with tempfile.TemporaryDirectory() as folder:
        return FRAME % html.escape(explorer.save(Path(folder)/'explorer.html', size).read_text(encoding='utf-8'))


def raw(
    markup: str,    # HTML
) -> dict:          # data of an output
    "HTML as Markdown: where a notebook has an output of HTML, Quarto loads jQuery and RequireJS from elsewhere"
    fence = '`' * max(3, *(len(x) + 1 for x in re.findall('`+', markup)), 0)
    return {'text/markdown': f'\n{fence}{{=html}}\n{markup.strip()}\n{fence}\n'}


class Pages:
    "A processor of nbdev, the last one: what it leaves is what Quarto gets"
    def __init__(self,
        nb: dict,   # notebook in the making, with all its cells
    ):
        config, path = get_config(), Path(nb.path_)
        self.nb, self.page = nb, path.resolve().relative_to(config.nbs_path.resolve()).with_name(re.sub(r'^\d+_', '', path.stem) + '.html').as_posix()
        exported = next((c.directives_['default_exp'][0] for c in nb.cells if 'default_exp' in c.directives_), None)
        self.module = import_module(f'{config.lib_path.name}.{exported}') if exported else None
        self.names = dict(vars(self.module)) if self.module else {}
        if any('exec_doc' in c.directives_ for c in nb.cells): self.run()
        for node in (n for cell in nb.cells for tree in cell.parsed_() or [] for n in ast.walk(tree)):
            if not isinstance(node, ast.ImportFrom) or not (node.module or '').startswith(config.lib_path.name): continue
            source = import_module(node.module)
            for a in node.names:
                for n in getattr(source, '__all__', []) if a.name == '*' else [a.name]: self.names[a.asname or n] = getattr(source, n, None)

    def run(self):
        "Run what a page computes: the cells marked `exec_doc`, after the imports; what is exported comes from the module"
        shell = CaptureShell(path=Path(self.nb.path_).parent)
        shell.user_ns.update(self.names)
        for cell in self.nb.cells:
            imports = not {'export', 'exporti'} & {*cell.directives_} and any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in cell.parsed_() or [])
            if not imports and 'exec_doc' not in cell.directives_: continue
            shell.cell(cell)
            if shell.exc: raise RuntimeError(f'{self.nb.path_}: this cell failed: {cell.source}') from shell.exc

    def end(self):
        "After all cells have run"
        for cell in self.nb.cells:
            if cell.cell_type == 'markdown': cell.source = aligned(linked(cell.source, self.names, self.page))
            if cell.cell_type == 'code': self.code(cell)
        self.nb.metadata.pop('widgets', None)   # with it Quarto would load the widget manager from elsewhere

    def code(self,
        cell: dict, # of code
    ):
        "What a cell of code shows"
        from ipywidgets.widgets.widget import _instances as widgets
        if shown := re.search(r'^show_doc\((\S+)\)$', cell.source, re.M):
            sym = attrgetter(shown[1])(self.module)
            cell.outputs = [dict(output_type='display_data', metadata={}, data={'text/markdown': entry(sym, shown[1], self.names)})]
            return
        outputs = cell.setdefault('outputs', [])
        if not outputs and SETUP.match(cell.source): cell.source = f'#| code-fold: true\n#| code-summary: "Set-up"\n{cell.source}'
        pictured = any(kind.startswith('image/') for o in outputs for kind in o.get('data', {}))
        for o in outputs:
            data = {kind: ''.join(x) if kind.startswith('text/') else x for kind, x in o.get('data', {}).items()}
            if view := data.get('application/vnd.jupyter.widget-view+json'): o['data'] = raw(framed(widgets[view['model_id']]))
            elif 'text/markdown' in data: o['data'] = {'text/markdown': aligned(data['text/markdown'])}
            elif 'text/html' in data: o['data'] = raw(data['text/html'])
            elif pictured and re.fullmatch(r'[(\[].*[)\]]', data.get('text/plain', '')):  # Quarto drops such a result beside an image
                o.clear()
                o.update(output_type='stream', name='stdout', text=[data['text/plain']])


def site() -> dict:
    "The part of the site's configuration that is computed"
    config = get_config()
    name, version = re.search(r'(\S.+)\s+Version ([\d.]+)', (config.config_path/'LICENSE').read_text(encoding='utf-8')).groups()
    return dict(website={'page-footer': dict(left=f'{config.title} {config.version}, {name} {version}', right=f'[Repository]({config.git_url})')})


if __name__ == '__main__':
    import yaml
    (get_config().nbs_path/'site.yml').write_text(yaml.safe_dump(site(), sort_keys=False), encoding='utf-8')
