"What an explorer gives back when it is closed"
import gc, threading, time, weakref

import pytest

from carvana_unet import explorer
from carvana_unet.explorer import ExplorerError, Latest, MaskExplorer, Network, Passes
from carvana_unet.studio import write_studio
from test_commands import model  # noqa: F401, a fixture


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_studio(tmp_path_factory.mktemp('explorer')/'studio', seeds=[1], views=(1, 2, 5, 7), size=(333, 501))


def pictures(stages):
    "Arrays and tensors of the photos' size that are alive, by a weak reference to each that the stages ever made"
    gc.collect()
    return sum(ref() is not None for ref in stages)


@pytest.fixture
def made(monkeypatch):
    "Weak references to all photos, masks and maps, as they are made"
    refs, rgb, mask, predict = [], explorer.read_photo, explorer.read_mask, Passes.predict
    def noted(array):
        refs.append(weakref.ref(array))
        return array
    def predicted(self, photo):
        found = predict(self, photo)
        noted(found.small), refs.extend(weakref.ref(maps) for maps, _ in self.passes)
        return found
    monkeypatch.setattr(explorer, 'read_photo', lambda *a, **k: noted(rgb(*a, **k)))
    monkeypatch.setattr(explorer, 'read_mask', lambda *a, **k: noted(mask(*a, **k)))
    monkeypatch.setattr(Passes, 'predict', predicted)
    monkeypatch.setattr(explorer, 'Network', lambda prob, *more: Network(noted(prob), *more))
    return refs


def test_four_explorers_opened_and_closed_leave_nothing(folder, model, made):
    threads, gone, held = set(threading.enumerate()), [], []
    for i in range(4):
        w = MaskExplorer(folder, model=model, scale=1, device='cpu', tta=bool(i % 2))
        for index in range(4): w.stages.frame(index, w.settings)
        w.freeze(200)
        for kind in ('rank', 'thumb', 'frame'):
            more = dict(rank=dict(settings=w.settings, key='k'), thumb=dict(index=1), frame=dict(index=2, settings=w.settings, key='k', photo=True))[kind]
            w._receive(w, dict(kind=kind, **more), [])
        if i == 0: assert pictures(made) > 8
        w.close()
        assert set(threading.enumerate()) <= threads
        w.close()  # again changes nothing
        gone.append(weakref.ref(w)), held.append(w)
    assert len(made) > 40 and pictures(made) == 0, 'closed, but still named'
    del w, held
    gc.collect()
    assert [w() for w in gone] == [None] * 4


def test_an_explorer_without_work_has_no_thread(folder, model):
    threads = set(threading.enumerate())
    w = MaskExplorer(folder, model=model, device='cpu')
    assert set(threading.enumerate()) <= threads
    w._receive(w, dict(kind='thumb', index=1), [])
    for _ in range(1000):
        if set(threading.enumerate()) <= threads: break
        time.sleep(.01)
    assert set(threading.enumerate()) <= threads
    w.close()


def test_an_explorer_that_was_never_complete_is_collected_quietly(capfd, tmp_path):
    with pytest.raises(ExplorerError): MaskExplorer(tmp_path)
    gc.collect()
    assert capfd.readouterr().err == ''


def test_a_job_that_fails_does_not_end_the_others():
    worker, done, hook = Latest(), [], threading.excepthook
    threading.excepthook = lambda args: done.append(args.exc_type)
    try:
        worker.ask(lambda: 1 / 0)
        while ZeroDivisionError not in done: time.sleep(.01)
        worker.later([lambda: done.append('next')])
        while 'next' not in done: time.sleep(.01)
    finally: threading.excepthook = hook
    worker.stop()
    assert worker.thread is None or not worker.thread.is_alive()
