"carvana-score: what its figures are, what it refuses, and whether it finds labels that were spoilt on purpose"
import io, json, re, shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from carvana_unet.carvana import pairs
from carvana_unet.score_command import carvana_score
from carvana_unet.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from carvana_unet.dice import dice
from carvana_unet.photos import read_mask, read_photo, write_mask
from carvana_unet.prediction import Predictor
from carvana_unet.submission import encode
from carvana_unet.scoring import audit, cross_validate, suspect_region, folds_of, standard_error
from carvana_unet.studio import car_id, write_studio
from carvana_unet.unet import UNet
from test_commands import lines, save_tiny

SIZE = (160, 240)
VIEWS = range(1, 17, 2)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    "The command runs in this process, in a folder of the test's own"
    monkeypatch.chdir(tmp_path)


def run(*words):
    "Exit status, stdout and stderr of `carvana-score`"
    out, err, status = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try: carvana_score([str(w) for w in words])
        except SystemExit as e: status = e.code
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())


def refused(result, text):
    "Exit status 1 and one line with this text"
    assert result.status == 1 and len(lines(result.err)) == 1 and text in result.err, result.err


@pytest.fixture(scope='module')
def studio(tmp_path_factory):
    return write_studio(tmp_path_factory.mktemp('studio'), seeds=[1, 2, 3], views=VIEWS, size=SIZE)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp('model')/'tiny.pth', cars=[car_id(1)])


def test_the_report_is_what_the_masks_say(studio, model, tmp_path):
    "Every figure of the JSON file, computed once more from the predicted masks"
    (tmp_path/'cars.txt').write_text(f'{car_id(2)}\n{car_id(3)}\n')
    result = run(model, studio, '--cars', 'cars.txt', '--cpu', '--tta', '--json', 'r.json', '--html', 'r.html')
    assert result.status == 0 and lines(result.err) == [], result.err
    report = json.loads((tmp_path/'r.json').read_text())
    assert list(report['variants']) == ['network alone', 'TTA'] and report['trained'] == []
    for name, predictor in [('network alone', Predictor(model, 'cpu')), ('TTA', Predictor(model, 'cpu', tta=True))]:
        v = report['variants'][name]
        items = [p for p in pairs(studio) if p.car != car_id(1)]
        scores = {p.name: dice(predictor.mask(p.photo), read_mask(p.mask)) for p in items}
        assert v['dice'] == pytest.approx(np.mean(list(scores.values())), abs=1e-4)
        assert v['worst'][1] == pytest.approx(min(scores.values()), abs=1e-3)
        means = [np.mean([scores[p.name] for p in items if p.car == car]) for car in (car_id(2), car_id(3))]
        assert v['standard_error'] == pytest.approx(np.std(means, ddof=1) / 2**.5, abs=1e-4)
        assert sorted(map(int, v['view'])) == list(VIEWS) and sorted(v['car']) == sorted([car_id(2), car_id(3)])
        assert f"{v['dice']:.5f}" in result.out
    html = (tmp_path/'r.html').read_text()
    assert html.count('<svg') == 2 and html.count('<img src="data:image/jpeg;base64,') == 16  # 8 photos, map and close-up
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html.replace('xlink:href="#', '')) and 'NOT AN HONEST' not in html


def test_cars_of_the_training_are_refused_or_told(studio, model, tmp_path):
    refused(run(model, studio, '--cpu'), 'tiny.pth')
    result = run(model, studio, '--cpu', '--anyway', '--json', 'r.json', '--html', 'r.html')
    assert result.status == 0
    told = f'NOT AN HONEST SCORE: 1 of the 3 cars were trained on ({car_id(1)} for one)'
    assert result.out.startswith(told) and told in (tmp_path/'r.html').read_text()
    assert json.loads((tmp_path/'r.json').read_text())['trained'] == [car_id(1)]


def write_csv(path, masks, suffix='.jpg'):
    path.write_text('img,rle_mask\n' + ''.join(f'{name}{suffix},{encode(mask)}\n' for name, mask in masks.items()))


def test_masks_with_faults_are_refused_or_reported(studio, model, tmp_path):
    "Cut-outs as masks give the same score as plain ones; an inverted mask stops the scoring, of a model and of a submission"
    data = shutil.copytree(studio, tmp_path/'data')
    (tmp_path/'cars.txt').write_text(f'{car_id(2)}\n')
    plain = run(model, data, '--cars', 'cars.txt', '--cpu').out
    items = [p for p in pairs(data) if p.car == car_id(2)]
    for p in items:
        Image.fromarray(np.dstack([read_photo(p.photo), read_mask(p.mask) * np.uint8(255)])).save(p.mask.with_suffix('.png'))
        p.mask.unlink()
    cut = run(model, data, '--cars', 'cars.txt', '--cpu')
    dropped = lambda out: [line for line in out.splitlines() if 'seconds' not in line]
    assert cut.status == 0 and dropped(cut.out) == dropped(plain)
    mask = items[3].mask.with_suffix('.png')
    write_mask(~read_mask(mask), mask)
    result = run(model, data, '--cars', 'cars.txt', '--cpu')
    refused(result, f'{mask.name}: is car all round its rim; make the car the light part (1 of 8 masks have faults')
    result = run(model, data, '--cars', 'cars.txt', '--cpu', '--anyway')
    assert result.status == 0 and 'all round its rim' in result.err
    rows = [f'{p.name}.jpg,{encode(read_mask(p.mask.with_suffix(".png")))}' for p in items]
    (tmp_path/'all.csv').write_text('\n'.join(['img,rle_mask', *rows, '']))
    refused(run('all.csv', data/'train_masks', '--cars', 'cars.txt'), f'{mask.name}: is car all round its rim')
    write_mask(np.zeros(SIZE, bool), mask)
    result = run(model, data, '--cars', 'cars.txt', '--cpu')
    assert result.status == 0 and 'no pixel is car' in result.err


def test_a_submission_scores_what_its_model_scores(studio, model, tmp_path):
    items, predictor = pairs(studio), Predictor(model, 'cpu')
    masks = {p.name: predictor.mask(p.photo) for p in items}
    write_csv(tmp_path/'SUBMISSION.csv', masks)
    result = run('SUBMISSION.csv', studio, '--json', 'r.json', '--html', 'r.html')
    assert result.status == 0, result.err
    expected = np.mean([dice(masks[p.name], read_mask(p.mask)) for p in items])
    assert json.loads((tmp_path/'r.json').read_text())['variants']['submission']['dice'] == pytest.approx(expected)
    result = run('SUBMISSION.csv', studio/'train_masks', '--last', 1)  # a folder of masks, no photos
    assert result.status == 0 and 'photos, cars              8, 1' in result.out


def test_a_submission_against_a_csv_file_of_masks(tmp_path):
    "At the competition's size, which a CSV file does not tell"
    mask = np.zeros((1280, 1918), bool)
    mask[400:900, 300:1500] = True
    write_csv(tmp_path/'true.csv', {f'{"a" * 12}_01': mask})
    write_csv(tmp_path/'mine.csv', {f'{"a" * 12}_01': np.roll(mask, 5, 1), f'{"b" * 12}_01': mask})  # more rows do no harm
    result = run('mine.csv', 'true.csv')
    assert f'mean dice                 {1 - 5 / 1200:.5f}' in result.out
    refused(run('true.csv', 'mine.csv'), 'have no row')


@pytest.mark.parametrize('words', [['data'], ['MODEL.pth', 'data', '--folds', '5'], ['MODEL.pth', 'data', '--audit', '5']])
def test_a_command_line_without_sense(words, tmp_path):
    result = run(*words)
    assert result.status == 2 and len(lines(result.err)) == 1


def test_an_empty_mask_has_no_boundary_and_json_knows_no_infinity(studio, tmp_path):
    items = pairs(studio)
    write_csv(tmp_path/'none.csv', {p.name: np.zeros(SIZE, bool) for p in items})
    result = run('none.csv', studio, '--json', 'r.json', '--html', 'r.html')
    assert result.status == 0, result.err
    assert json.loads((tmp_path/'r.json').read_text(), parse_constant=pytest.fail)['variants']['submission']['boundary_error'] is None


def test_the_standard_error_is_that_of_cars():
    "Of the mean over photos, with the cars drawn again and again (a bootstrap over cars)"
    rng = np.random.default_rng(1)
    rows = [dict(car=c, dice=level + rng.normal(0, .002)) for c, level in enumerate(rng.normal(.99, .004, 30)) for _ in range(5 + 11 * (c % 3 == 0))]
    by_car = [[r['dice'] for r in rows if r['car'] == c] for c in range(30)]
    means = [np.mean(sum((by_car[c] for c in rng.integers(0, 30, 30)), [])) for _ in range(4000)]
    assert standard_error(rows) == pytest.approx(np.std(means), rel=.1)


class Knows:
    "In the place of a training: a network's file that says what it would have been trained on"
    def __init__(self): self.calls = []
    def __call__(self, folders, output, valid, device, seed, **recipe):
        self.calls.append(valid)
        torch.manual_seed(0)
        net = UNet(width=4, depth=2)
        cars = {p.car for p in pairs(folders[0])} - set(valid.read_text().split())
        save_checkpoint(Checkpoint(net.state_dict(), net.arch, cars=sorted(cars)), output)


def test_no_photo_is_scored_by_a_network_that_knows_its_car(studio, tmp_path):
    train = Knows()
    rows, rles = cross_validate(studio, 3, keep=tmp_path, train=train, device='cpu')
    assert len(train.calls) == 3 and [r['name'] for r in rows] == [p.name for p in pairs(studio)] and rles.keys() == {r['name'] for r in rows}
    for r in rows: assert r['car'] not in load_checkpoint(tmp_path/f'fold_{r["fold"]}_of_3.pth').cars
    (tmp_path/'fold_2_of_3.pth').unlink()  # as if stopped after the first fold and begun again
    assert cross_validate(studio, 3, keep=tmp_path, train=train, device='cpu')[0] == rows and len(train.calls) == 4


def test_cross_validation_trains(studio, tmp_path):
    "With the real training, one epoch of a tiny network for each of two folds"
    recipe = dict(arch='unet', scale=.5, width=4, depth=3, epochs=1, crop=64, batch_size=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
        rows, _ = cross_validate(studio, 2, keep=tmp_path/'folds', device='cpu', **recipe)
    assert len(rows) == 24 and all(0 <= r['dice'] <= 1 for r in rows)
    for fold, cars in enumerate(folds_of([r['car'] for r in rows], 2), 1):
        assert not set(cars) & set(load_checkpoint(tmp_path/f'folds/fold_{fold}_of_2.pth').cars)
        assert {r['car'] for r in rows if r['fold'] == fold} == set(cars)


def spoil(kind, mask):
    "A label with a mistake that people make"
    drawn, (rows, cols) = mask.copy(), np.nonzero(mask)
    bottom, left, right, top = rows.max(), cols.min(), cols.max(), rows.min()
    w, h = right - left, bottom - top
    if kind == 'wheel lost': drawn[bottom - h // 4:bottom + 1, left + w // 6:left + w // 3] = False
    if kind == 'roof lost': drawn[top:top + h // 6] = False
    if kind == 'shadow kept': drawn[bottom - 1:bottom + h // 6, left + w // 4:right - w // 4] = True
    if kind == 'hole': drawn[(top + bottom) // 2:, :][:h // 5, (left + right) // 2:][:, :w // 5] = False
    if kind == 'speck': drawn[:20, :20] = True
    return drawn


@pytest.mark.parametrize('kind', ['wheel lost', 'roof lost', 'shadow kept', 'hole', 'speck'])
def test_spoilt_labels_rank_first(studio, kind):
    "Predictions with an outline a pixel off and shaken by noise, among 24 labels three that are wrong"
    rng, rows, items = np.random.default_rng(0), [], pairs(studio)
    chosen = {items[i].name for i in (3, 10, 17)}
    for pair in items:
        true = read_mask(pair.mask)
        predicted = binary_dilation(true) & (rng.random(SIZE) < .97)
        label = spoil(kind, true) if pair.name in chosen else true
        rows.append(dict(name=pair.name) | suspect_region(predicted, label))
    ranked = audit(rows, 3)
    assert {r['name'] for r in ranked} == chosen
    assert all(r['lacking'] == (kind in ('wheel lost', 'roof lost', 'hole')) for r in ranked)


def test_suspect_region_is_in_pixels():
    true = np.zeros((100, 200), bool)
    true[20:80, 50:150] = True
    mask = true.copy()
    mask[30:50, 150:160] = True  # 20x10 pixels beyond the right side
    found = suspect_region(mask, true)
    assert (found['area'], found['depth'], found['box'], found['lacking']) == (200, 10, [30, 150, 50, 160], True)
    assert found['weight'] == 20 * sum(range(1, 11))
    assert suspect_region(true, np.zeros_like(true))['area'] == true.sum()  # a label that was forgotten


def test_a_photo_that_cannot_be_scored(studio, model, tmp_path):
    "It gets a line that names it, the others are scored, and the exit status is 1"
    data = Path(shutil.copytree(studio, tmp_path/'data'))
    small, words, *good = sorted((data/'train').iterdir())
    mask = next((data/'train_masks').glob(f'{small.stem}_mask.*'))
    write_mask(read_mask(mask)[::2], mask)
    words.write_text('these are words')
    result = run(model, data, '--anyway', '--json', 'score.json')
    found = [line for line in lines(result.err) if 'does not list' not in line]
    assert result.status == 1 and f'{mask}: is 240x80 and its photo 240x160' in found[0] and words.name in found[1] and '2 photos could not be scored' in found[2]
    assert json.loads((tmp_path/'score.json').read_text())['variants']['network alone']['photos'] == len(good)
