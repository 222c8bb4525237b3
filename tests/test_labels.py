"""Label files as the tools write them, re-drawn, and as a person may hand them over"""
import json

import numpy as np
import pytest
from PIL import Image

from carvana_unet.studio import studio_photo
from test_commands import call

pytest.importorskip('pycocotools')
from pycocotools import mask as rle
from carvana_unet.labels import LabelError, coco_of_masks, masks_of_coco, polygons, renumber, yolo_of_mask

# A car of 30x10 pixels with its corner at (5, 4), in a photo of 48x24.
BOX = np.zeros((24, 48), bool)
BOX[4:14, 5:35] = True
CORNERS = [5, 4, 35, 4, 35, 14, 5, 14]


def runs(mask):
    "Lengths of runs in column order, zeros first, as CVAT writes them"
    x = np.concatenate([[0], mask.T.ravel(), [2]])
    ends = np.flatnonzero(np.diff(x[:-1])).tolist()
    return np.diff([0, *ends, mask.size]).tolist()


def dataset(segmentation, name='front.jpg', **more):
    found = dict(id=1, image_id=1, category_id=1, segmentation=segmentation, area=300, bbox=[5, 4, 30, 10], iscrowd=0) | more
    return dict(images=[dict(id=1, file_name=name, height=24, width=48)], annotations=[found], categories=[dict(id=1, name='car')])


# Label Studio numbers categories from 0 and names files after an upload; CVAT writes masks as a list of runs with iscrowd 1
TOOLS = dict(
    label_studio=dataset([CORNERS], 'images/8a3f01bc-front.jpg', category_id=0) | dict(categories=[dict(id=0, name='car')], info=dict(contributor='Label Studio')),
    label_studio_windows=dataset([CORNERS], '..\\media\\upload\\1\\8a3f01bc-front.jpg'),
    cvat_polygon=dataset([CORNERS], attributes=dict(occluded=False)) | dict(licenses=[dict(name='', id=0, url='')]),
    cvat_mask=dataset(dict(counts=runs(BOX), size=[24, 48]), iscrowd=1, attributes=dict(occluded=False)),
    two_parts=dataset([[5, 4, 20, 4, 20, 14, 5, 14], [20, 4, 35, 4, 35, 14, 20, 14]]))


@pytest.mark.parametrize('tool', TOOLS)
def test_what_label_tools_export(tool, tmp_path):
    (tmp_path/'labels.json').write_text(json.dumps(TOOLS[tool]))
    (name, mask), = masks_of_coco(tmp_path/'labels.json')
    assert name.endswith('front') and mask.dtype == np.uint8
    assert ((mask > 0) == BOX).all(), tool


def test_classes_and_photos_without_labels(tmp_path):
    data = TOOLS['cvat_polygon'] | dict(categories=[dict(id=1, name='car'), dict(id=9, name='wheel')])
    wheel = data['annotations'][0] | dict(id=2, category_id=9, segmentation=[[10, 10, 14, 10, 14, 14, 10, 14]])
    data = data | dict(annotations=[*data['annotations'], wheel], images=[*data['images'], dict(id=2, file_name='empty.jpg', height=24, width=48)])
    (tmp_path/'labels.json').write_text(json.dumps(data), encoding='utf-8-sig')
    found = dict(masks_of_coco(tmp_path/'labels.json', ['car', 'wheel']))
    assert found['front'][12, 12] == 2 and found['front'][5, 30] == 1 and not found['empty'].any()
    only = dict(masks_of_coco(tmp_path/'labels.json', ['wheel']))['front']
    assert only[12, 12] == 1 and only[5, 30] == 0


def test_coco_keeps_every_pixel(tmp_path):
    _, mask = studio_photo(3, 2, size=(120, 180))
    holed = mask.copy()
    holed[60:64, 80:90] = False
    numbers = holed.astype(np.uint8)
    numbers[70:80, 60:70] = 2
    (tmp_path/'a.json').write_text(json.dumps(coco_of_masks([('a.jpg', numbers), ('b.jpg', np.zeros((9, 9), np.uint8))], ['car', 'wheel'])))
    found = dict(masks_of_coco(tmp_path/'a.json', ['car', 'wheel']))
    assert (found['a'] == numbers).all() and not found['b'].any()


def test_yolo_polygons_cover_the_mask():
    _, mask = studio_photo(3, 2, size=(240, 360))
    numbers = mask.astype(np.uint8)
    numbers[5:15, 10:20] = 2
    drawn = np.zeros_like(numbers)
    for line in yolo_of_mask(numbers).splitlines():
        number, *points = line.split()
        points = np.array(points, float).reshape(-1, 2)
        assert points.min() >= 0 and points.max() <= 1
        runs = rle.frPyObjects([(points * (360, 240)).ravel().tolist()], 240, 360)
        drawn[rle.decode(runs)[..., 0] > 0] = int(number) + 1
    for i in (1, 2): assert 2 * ((drawn == i) & (numbers == i)).sum() / ((drawn == i).sum() + (numbers == i).sum()) > .99
    assert yolo_of_mask(np.zeros((5, 5), bool)) == '' and polygons(np.ones((5, 5), bool))[0].max() == 5


def test_numbers_are_renamed(tmp_path):
    Image.fromarray(np.array([[0, 38, 75, 255]], np.uint8)).save(tmp_path/'a.png')
    assert renumber(tmp_path/'a.png', {38: 1, 75: 2}, [255]).tolist() == [[0, 1, 2, 0]]
    assert renumber(tmp_path/'a.png', {}, [255]).tolist() == [[0, 38, 75, 0]]
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path/'rgb.png')
    for path, values, words in ((tmp_path/'a.png', {38: 1}, 'has the value 75'), (tmp_path/'rgb.png', {1: 1}, 'has colours')):
        with pytest.raises(LabelError, match=words): renumber(path, values)


BROKEN = {'not json': b'hello', 'a list': b'[]', 'empty': b'', 'deep': b'[' * 100_000, 'no lists': b'{"images": 3}',
          'too many runs': dataset(dict(counts=[10_000, 3], size=[24, 48])), 'negative runs': dataset(dict(counts=[3, -1], size=[24, 48])),
          'compressed noise': dataset(dict(counts='o0o0oooo', size=[24, 48])), 'another size': dataset(dict(counts=runs(BOX), size=[12, 48])),
          'words': dataset([['a', 'b']]), 'no photo': dataset([CORNERS]) | dict(images=[dict(id=1)]), 'huge': dataset([CORNERS]) | dict(
              images=[dict(id=1, file_name='a.jpg', height=10**6, width=10**6)])}


@pytest.mark.parametrize('case', BROKEN)
def test_broken_files_are_refused_in_a_line(case, tmp_path):
    content = BROKEN[case]
    path = tmp_path/'labels.json'
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(LabelError) as e: list(masks_of_coco(path))
    assert str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value)


def test_the_command(tmp_path):
    (tmp_path/'labels.json').write_text(json.dumps(TOOLS['cvat_mask']))
    def run(*words): return call('convert', *words, cwd=tmp_path)
    assert run('labels.json', '-o', 'masks').stdout == 'masks: 1 files\n'
    assert (np.array(Image.open(tmp_path/'masks/front.png')) == BOX * 255).all()
    assert run('masks', '-o', 'again.json', '--to', 'coco').returncode == 0
    assert ((dict(masks_of_coco(tmp_path/'again.json'))['front'] > 0) == BOX).all()
    assert run('masks', '-o', 'yolo', '--to', 'yolo').returncode == 0 and (tmp_path/'yolo/front.txt').read_text().startswith('0 0.')
    assert run('masks', '-o', 'numbers', '--values', '255=3').returncode == 0 and np.array(Image.open(tmp_path/'numbers/front.png')).max() == 3
    (tmp_path/'empty').mkdir()
    for words, start in ((('nowhere.json', '-o', 'x'), 'nowhere.json: cannot be read'), (('empty', '-o', 'x'), 'empty: holds no masks'),
                         (('masks', '-o', 'x', '--values', 'a=b'), '--values a=b: give pairs'), (('labels.json', '-o', 'x', '--classes', 'bus'), 'labels.json: has no category bus'),
                         (('labels.json', '-o', 'x', '--to', 'yolo'), 'labels.json: becomes masks')):
        r = run(*words)
        assert r.returncode in (1, 2) and r.stderr.startswith(start) and r.stderr.count('\n') == 1, (words, r.stderr)
