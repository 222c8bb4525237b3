// The page that cuts out photos without Python. It follows explorer.js, whose canvas it uses, in one module: from the
// disk, a browser loads no modules of a page's own, and it refuses `fetch`, so the large parts come as scripts.

const MOST = 50e6;  // pixels of a photo
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);  // a WebAssembly module that uses SIMD
const element = id => document.getElementById(id);

// ---- A photo ----

async function decode(file) {  // upright, in sRGB, on white: ImageData
  const image = await createImageBitmap(file).catch(() => { throw new Error(`${file.name}: is not an image that this browser can read; choose a JPEG, PNG or WebP file`); });
  const {width, height} = image;
  if (width * height > MOST) throw new Error(`${file.name}: ${width}x${height} is too large for this page; shrink it to at most ${MOST / 1e6} million pixels, or use carvana-predict`);
  const pen = Object.assign(document.createElement('canvas'), {width, height}).getContext('2d', {willReadFrequently: true});
  pen.fillStyle = 'white';
  pen.fillRect(0, 0, width, height);
  pen.drawImage(image, 0, 0);
  image.close();
  try { return pen.getImageData(0, 0, width, height); }
  catch { throw new Error(`${file.name}: ${width}x${height} is too large for this browser; shrink it, or use carvana-predict`); }
}

async function small(image) {  // JPEG bytes for the strip
  const whole = await createImageBitmap(image), k = Math.min(196 / image.width, 132 / image.height, 1);
  const canvas = Object.assign(document.createElement('canvas'), {width: Math.ceil(k * image.width), height: Math.ceil(k * image.height)});
  canvas.getContext('2d').drawImage(whole, 0, 0, canvas.width, canvas.height);
  whole.close();
  return (await new Promise(f => canvas.toBlob(f, 'image/jpeg'))).arrayBuffer();
}

const through = (bytes, stream) => new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer();
const packed = bytes => through(bytes, new CompressionStream('gzip'));
const unpacked = bytes => through(bytes, new DecompressionStream('gzip'));

// ---- The network ----

function script(name) {
  return new Promise((resolve, reject) => document.head.append(make('script', {src: `${name}.js`, onload: resolve,
    onerror: () => reject(new Error(`${name}.js: is missing beside this page; write the folder again`))})));
}

class Network {  // in a worker
  static async start() {
    await Promise.all(['network', 'runtime'].map(script));  // each adds to `parts`: gzip in base64
    const [network, library, wasm] = await Promise.all(['network', 'library', 'wasm'].map(name => unpacked(octets(globalThis.parts[name]))));
    globalThis.parts = {};
    const it = new Network(), threads = globalThis.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency) : 1;
    await it.ask('start', {network, library, wasm, threads}, [network, library, wasm]);
    return it;
  }
  constructor() {
    this.waiting = new Map();
    this.worker = new Worker(URL.createObjectURL(new Blob([element('worker').textContent], {type: 'text/javascript'})));
    this.worker.onmessage = ({data: {id, value, error}}) => {
      const {resolve, reject} = this.waiting.get(id);
      this.waiting.delete(id);
      error ? reject(new Error(error)) : resolve(value);
    };
    this.worker.onerror = e => { for (const {reject} of this.waiting.values()) reject(new Error(e.message || 'the worker stopped')); };
  }
  ask(kind, job, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = Math.random();
      this.waiting.set(id, {resolve, reject});
      this.worker.postMessage({id, kind, ...job}, transfer);
    });
  }
}

// ---- In the place of Python ----

class Photos extends Still {
  constructor(state) {
    super(state);
    Object.assign(this, {files: [], thumbs: [], found: new Map(), shown: null, busy: false, network: null});
  }
  send({kind, ...message}) { this[kind]?.(message); }
  tell(message, buffers) { return Promise.all((this.heard['msg:custom'] ?? []).map(f => f(message, buffers))); }
  hello() { this.tell({kind: 'live'}); }
  thumb({index}) { this.tell({kind: 'thumb', index}, [this.thumbs[index]]); }
  async frame(request) {
    this.shown = request;
    const found = this.found.get(request.index);
    if (!found) return this.work();
    if (found.error) return this.tell({kind: 'say', text: found.error, error: true});
    const [image, prob] = await Promise.all([decode(this.files[request.index]), unpacked(found.prob)]);
    this.show(request, found, image, new Uint8ClampedArray(prob));
  }
  async show({index, key}, {ms, engine}, image, prob) {
    await this.tell({kind: 'frame', index, key, size: [image.width, image.height], ms, parts: ['photo', 'prob']}, [image, prob]);
    this.tell({kind: 'say', text: `${this.files[index].name}: ${(ms.network / 1000).toFixed(1)} s (${engine})`});
  }
  async work() {  // the photo shown comes first, then the others
    if (this.busy) return;
    this.busy = true;
    const next = () => [this.shown.index, ...this.files.keys()].find(i => !this.found.has(i));
    for (let index; (index = next()) !== undefined;) await this.compute(index);
    this.busy = false;
  }
  async compute(index) {
    const {name} = this.files[index], now = () => performance.now();
    try {
      if (!this.network) this.tell({kind: 'say', text: 'Loading the network ...'});
      const network = await (this.network ??= Network.start()), start = now();
      const image = await decode(this.files[index]), decoded = now(), {width, height} = image;
      const {prob, engine} = await network.ask('run', {rgba: image.data, width, height});
      const found = {engine, ms: {decoding: decoded - start, network: now() - decoded}, prob: await packed(prob)};
      this.found.set(index, found);
      if (this.shown.index === index) this.show(this.shown, found, image, prob); else this.tell({kind: 'counts', index, key: '{}', ...count(prob)});
    } catch (e) {
      this.network?.then(network => network.worker.terminate(), () => {});
      this.network = null;  // a new one for the next photo
      const error = e.message.startsWith(name) ? e.message : `${name}: the network failed (${e.message}); reload the page, or shrink the photo`;
      this.found.set(index, {error});
      if (this.shown.index === index) this.tell({kind: 'say', text: error, error: true});
    }
  }
}

// ---- The page ----

const photos = new Photos({photos: [], index: 0, view: 'overlay', other: '', split: .5, opacity: .45, background: '', settings: {}, controls: [], frames: {},
                           ...JSON.parse(element('state').textContent)});
const complain = text => element('errors').append(make('div', {}, text));

async function add(files) {
  const first = photos.files.length, added = [];
  element('errors').replaceChildren();
  for (const file of files) {
    try {
      photos.thumbs.push(await small(await decode(file)));
      photos.files.push(file);
      added.push({name: file.name, path: file.name, car: '', view: 0, truth: false});
    } catch (e) { complain(e.message); }
  }
  if (!added.length) return;
  photos.set('photos', [...photos.get('photos'), ...added]);
  photos.set('index', first);
  document.body.classList.add('filled');
  globalThis.explorer ??= shown(photos, element('result'));
}

async function isolate() {  // threads need it; then the page is loaded again, once
  if (crossOriginIsolated || self !== top || !location.protocol.startsWith('http') || sessionStorage.isolated) return;
  sessionStorage.isolated = true;
  await navigator.serviceWorker.register('isolation.js');
  await navigator.serviceWorker.ready;
  location.reload();
}

function missing() {
  if (!globalThis.WebAssembly?.validate(SIMD)) return 'WebAssembly with SIMD';
  if (!globalThis.DecompressionStream) return 'DecompressionStream';
}

if (missing()) {
  complain(`This browser has no ${missing()}; update it, take another, or use carvana-predict.`);
  element('files').disabled = true;
} else {
  isolate().catch(() => {});  // one thread then
  if (location.protocol === 'file:') element('note').textContent = 'Opened from the disk, the network runs on one core; it is faster through a server: python -m http.server';
  element('files').onchange = e => { add([...e.target.files]); e.target.value = ''; };
  for (const kind of ['dragenter', 'dragover']) addEventListener(kind, e => { e.preventDefault(); element('drop').classList.add('over'); });
  for (const kind of ['dragleave', 'drop']) addEventListener(kind, () => element('drop').classList.remove('over'));
  addEventListener('drop', e => { e.preventDefault(); add([...e.dataTransfer.files]); });
}
