"""README.md is nbs/index.ipynb: `make readme` writes its tables, its picture and it, `test_package.py` compares.

nbdev's own `nbdev_readme` needs Quarto; pandoc alone gives the same text."""
import json, re
from contextlib import chdir
from pathlib import Path

import pypandoc

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT/'nbs/index.ipynb'
PICTURE = ROOT/'nbs/images/studio.jpg'
SEED, VIEW = 10_003, 3  # the car of the notebook's example


def begins(cell, *how):
    "Is this the first line of a cell?"
    return ''.join(cell['source']).startswith(how)


def computed(examples=False):
    "The notebook, with what its tables are now, and its example if that is wanted: its last digit may depend on the processor"
    from execnb.shell import CaptureShell
    notebook, shell = json.loads(INDEX.read_text(encoding='utf-8')), CaptureShell(INDEX.parent)
    with chdir(INDEX.parent):
        for cell in notebook['cells']:
            table = begins(cell, '#| echo: false')
            if cell['cell_type'] != 'code' or begins(cell, '#| exec_doc') or not (table or examples or begins(cell, '#| hide')): continue
            kind = 'text/markdown' if table else 'text/plain'
            cell['outputs'] = [dict(output_type='execute_result', execution_count=None, metadata={}, data={kind: ''.join(out['data'][kind]).splitlines(True)})
                               for out in shell.run(''.join(cell['source']))]
    return notebook


def readme():
    "The notebook as GitHub's Markdown, its pictures and the other notebooks found from the top folder; what only lives on the site is left out"
    notebook = json.loads(INDEX.read_text(encoding='utf-8'))
    notebook['cells'] = [c for c in notebook['cells'] if not begins(c, '#| hide', '#| exec_doc')]
    for cell in notebook['cells']:
        if begins(cell, '#| echo: false'): cell.update(cell_type='markdown', source=cell.pop('outputs')[0]['data']['text/markdown'])
        for output in cell.get('outputs', []): output['execution_count'] = 0  # `nbdev_clean` leaves null, which pandoc takes for an unknown format
    text = pypandoc.convert_text(json.dumps(notebook), 'gfm-raw_html', format='ipynb', extra_args=['--wrap=preserve'])
    return re.sub(r'\]\((?=images/|[\w/]+\.ipynb)', '](nbs/', text)


def draw_picture():
    "A studio car, and its cut-out on a checkerboard, side by side"
    import numpy as np
    from PIL import Image
    from carvana_unet import Predictor
    from carvana_unet.cutouts import cut_out, soft_alpha
    from carvana_unet.studio import studio_photo
    photo, _ = studio_photo(SEED, VIEW)
    found = Predictor().predict(photo)
    rows, columns = np.indices(found.mask.shape) // 64
    board = Image.fromarray(np.where((rows + columns) % 2, 255, 220).astype(np.uint8)).convert('RGBA')
    board.alpha_composite(Image.fromarray(cut_out(photo, soft_alpha(found.probability, found.threshold))))
    pictures = [Image.fromarray(photo), board]
    row = np.concatenate([np.asarray(p.convert('RGB')) for p in pictures], axis=1)
    PICTURE.parent.mkdir(exist_ok=True)
    Image.fromarray(row).reduce(3).save(PICTURE, quality=85)


if __name__ == '__main__':
    draw_picture()
    INDEX.write_text(json.dumps(computed(examples=True), indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')
    (ROOT/'README.md').write_text(readme(), encoding='utf-8')
