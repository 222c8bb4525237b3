"Fetch the ONNX Runtime that the page runs on: `make runtime`, after a new VERSION and INTEGRITY here"
import base64, hashlib, io, lzma, subprocess, tarfile, tempfile
from importlib.resources import files
from pathlib import Path

VERSION = '1.30.0'  # of npm's package onnxruntime-web
INTEGRITY = 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='  # as `npm view` gives it, without 'sha512-'
FILES = {'ort.mjs': 'ort.webgpu.bundle.min.mjs', 'ort.wasm': 'ort-wasm-simd-threaded.asyncify.wasm'}  # one build for WebGPU and WebAssembly
RUNTIME = Path(__file__).resolve().parents[1]/'carvana_unet/static/onnxruntime-web.tar.xz'


def package():
    "What npm has, checked"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(['npm', 'pack', '--silent', f'onnxruntime-web@{VERSION}'], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        data = next(Path(folder).iterdir()).read_bytes()
    assert base64.b64encode(hashlib.sha512(data).digest()).decode() == INTEGRITY, 'the package is not the one that was pinned'
    return tarfile.open(fileobj=io.BytesIO(data))


def runtime(found):
    "The two files of it that the page needs, with the licences that the wheel of onnxruntime carries"
    parts = {name: found.extractfile(f'package/dist/{file}').read() for name, file in FILES.items()}
    parts['LICENSES.txt'] = b'\n\n'.join((files('onnxruntime')/name).read_bytes() for name in ('LICENSE', 'ThirdPartyNotices.txt'))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as tar:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return lzma.compress(out.getvalue(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == '__main__':
    RUNTIME.write_bytes(runtime(package()))
    print(f'{RUNTIME}: onnxruntime-web {VERSION}, {RUNTIME.stat().st_size / 1e6:.1f} MB')
