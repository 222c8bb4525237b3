"""README.md is nbs/index.ipynb: `make readme` writes it and its picture, `test_package.py` compares.

nbdev's own `nbdev_readme` needs Quarto; pandoc alone gives the same text."""
import json, re
from pathlib import Path

import pypandoc

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT/'nbs/images/studio.jpg'
SEED, VIEW = 10_003, 3  # the car of the notebook's example


def readme():
    "The notebook as GitHub's Markdown, its pictures and the other notebooks found from the top folder; what only lives on the site is left out"
    notebook = json.loads((ROOT/'nbs/index.ipynb').read_text(encoding='utf-8'))
    notebook['cells'] = [c for c in notebook['cells'] if '#| exec_doc\n' not in c['source']]
    for cell in notebook['cells']:  # `nbdev_clean` leaves null, which pandoc takes for an unknown format
        for output in cell.get('outputs', []): output['execution_count'] = 0
    text = pypandoc.convert_text(json.dumps(notebook), 'gfm-raw_html', format='ipynb', extra_args=['--wrap=preserve'])
    return re.sub(r'\]\((?=images/|[\w/]+\.ipynb)', '](nbs/', text)


def draw_picture():
    "A studio car, the mask that the shipped model finds, and the cut-out on a checkerboard, side by side"
    import numpy as np
    from PIL import Image
    from carvana_unet import Predictor
    from carvana_unet.photos import cutout
    from carvana_unet.studio import studio_photo
    photo, _ = studio_photo(SEED, VIEW)
    mask = Predictor().mask(photo)
    rows, columns = np.indices(mask.shape) // 64
    board = Image.fromarray(np.where((rows + columns) % 2, 255, 220).astype(np.uint8)).convert('RGBA')
    board.alpha_composite(Image.fromarray(cutout(photo, mask)))
    pictures = [Image.fromarray(photo), Image.fromarray(mask), board]
    row = np.concatenate([np.asarray(p.convert('RGB')) for p in pictures], axis=1)
    PICTURE.parent.mkdir(exist_ok=True)
    Image.fromarray(row).reduce(4).save(PICTURE, quality=88)


if __name__ == '__main__':
    draw_picture()
    (ROOT/'README.md').write_text(readme(), encoding='utf-8')
