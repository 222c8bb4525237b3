"Run lengths: any mask comes back, any text is run lengths or one clear error, and Carvana's own text is ours"
import csv, os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from carvana_unet.submission import RLEError, decode, edges, encode

DATA = os.environ.get('CARVANA_PATH')
exact = settings(max_examples=300, deadline=None, derandomize=True, database=None)

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40), elements=st.booleans())


@exact
@given(masks)
@example(np.zeros((5, 7), bool))
@example(np.ones((5, 7), bool))
def test_every_mask_comes_back(mask):
    rle = encode(mask)
    assert (decode(rle, mask.shape) == mask).all()
    assert encode(decode(rle, mask.shape)) == rle


@exact
@given(masks)
def test_the_pixels_are_those_that_the_definition_names(mask):
    "Written from the competition's words: pairs of start and length, pixels from 1, left to right, then top to bottom"
    numbers = list(map(int, encode(mask).split()))
    pixels = [p for start, n in zip(numbers[::2], numbers[1::2]) for p in range(start, start + n)]
    assert pixels == [y * mask.shape[1] + x + 1 for y, x in np.argwhere(mask).tolist()]


@exact
@given(st.lists(st.integers(0, 12), max_size=8).map(lambda n: ' '.join(map(str, n))) | st.text('0123 -.x\n٣', max_size=12))
def test_any_text_is_run_lengths_or_an_error(text):
    try: mask = decode(text, (3, 5))
    except RLEError as e:
        assert str(e) and '\n' not in str(e)
        return
    numbers = list(map(int, text.split()))
    assert mask.shape == (3, 5) and mask.sum() == sum(numbers[1::2])
    assert len(encode(mask)) <= len(text)  # shorter where runs touch


def test_the_longest_text_there_is():
    "Every other pixel"
    stripes = np.arange(480 * 640).reshape(480, 640) % 2 == 1
    rle = encode(stripes)
    assert len(edges(rle, stripes.size)) == stripes.size
    assert (decode(rle, stripes.shape) == stripes).all()


@pytest.mark.skipif(not DATA, reason='CARVANA_PATH is not set')
def test_the_competitions_own_masks():
    "Every row of the masks' CSV file decodes to its GIF and encodes to the same text"
    table = next(path for name in ('valid_masks.csv', 'train_masks.csv') if (path := Path(DATA)/name).exists())  # a part of Kaggle's, or Kaggle's
    with open(table, newline='') as file: rows = list(csv.DictReader(file))[:320]
    assert len(rows) == 320
    for row in rows:
        mask = np.asarray(Image.open(Path(DATA)/'train_masks'/row['img'].replace('.jpg', '_mask.gif'))) == 1  # 0 and 1
        same = encode(mask) == row['rle_mask'], (decode(row['rle_mask'], mask.shape) == mask).all()
        assert all(same), row['img']  # the name alone: no row of a mask into a report
