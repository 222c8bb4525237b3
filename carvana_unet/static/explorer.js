// The canvas of carvana_unet.explorer: the same module draws in a notebook (an anywidget) and in a saved page.
// A photo comes with its probability as 8 bits a pixel. Thresholding, compositing and counting are done here, so that
// the threshold follows the mouse; Python is asked only for what needs the network.

const VIEWS = {
  overlay: 'Overlay', classes: 'Classes', photo: 'Photo', mask: 'Mask', cutout: 'Cut-out', boundary: 'Boundary', heat: 'Probability',
  uncertainty: 'Uncertainty', disagreement: 'Disagreement of two passes', difference: 'Difference from the true mask', refinement: 'Changed by the CRF',
};
const NEEDS = {classes: 'labels', disagreement: 'gap', difference: 'truth', refinement: 'before'};
const LEGEND = {
  overlay: 'Tinted: car.', mask: 'White: car.', cutout: 'What is saved as the cut-out.',
  boundary: 'The boundary of the mask.', heat: 'Dark: background. Bright: car.', uncertainty: 'Bright: the probability is near one half.',
  disagreement: 'Bright: two squares, or the photo and its flipped copy, give different probabilities.', difference: 'Red: in the mask, but not car. Blue: car, but not in the mask.', refinement: 'Bright: the CRF changed the probability.', photo: '', classes: '',
};
const rgba = (r, g, b) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;  // a pixel as canvases keep it, little-endian
const TINT = [255, 0, 110], WRONG = rgba(230, 25, 25), MISSED = rgba(30, 110, 255), EDGE = rgba(...TINT);
const WHITE = rgba(255, 255, 255), BLACK = rgba(0, 0, 0);
const HEAT = ramp([[0, 0, 4], [80, 18, 123], [182, 54, 121], [251, 136, 97], [252, 253, 191]]);
const KEPT = 18 * 1918 * 1280;  // pixels of the photos that stay decoded: a turn of 16 and two more

function ramp(stops) {  // 256 pixels through the colours given
  return Uint32Array.from({length: 256}, (_, i) => {
    const x = i / 255 * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(x));
    return rgba(...stops[k].map((c, j) => Math.round(c + (stops[k + 1][j] - c) * (x - k))));
  });
}

// ---- Pictures ----

function octets(x) {  // bytes as a page (base64) or a kernel (a view on a buffer) hands them over
  if (typeof x === 'string') return Uint8Array.from(atob(x), c => c.charCodeAt(0));
  return new Uint8Array(x.buffer ?? x, x.byteOffset ?? 0, x.byteLength);
}

async function pixels(x) {  // JPEG or PNG bytes -> ImageData, its values untouched
  if (x instanceof ImageData) return x;
  const image = await createImageBitmap(new Blob([octets(x)]), {colorSpaceConversion: 'none', premultiplyAlpha: 'none'});
  const pen = Object.assign(document.createElement('canvas'), {width: image.width, height: image.height}).getContext('2d', {willReadFrequently: true});
  pen.drawImage(image, 0, 0);
  return pen.getImageData(0, 0, image.width, image.height);
}

async function grey(x) {  // bytes of a greyscale PNG -> one byte a pixel
  if (x instanceof Uint8ClampedArray) return x;  // decoded already
  const {data} = await pixels(x), out = new Uint8Array(data.length / 4);
  for (let i = 0; i < out.length; i++) out[i] = data[4 * i];
  return out;
}

// ---- From a threshold to a mask ----

export const level = t => Math.min(255, Math.max(1, Math.floor(255 * t) + 1));  // car from this 8-bit value on
const halfway = k => (Math.min(255, Math.max(1, k)) - .5) / 255;                 // the threshold below level k

export function count(q, truth) {  // how many pixels have each 8-bit probability, on the car and off it
  const inside = new Float64Array(256), outside = new Float64Array(256);
  if (truth) for (let i = 0; i < q.length; i++) (truth[i] ? inside : outside)[q[i]]++;
  else for (let i = 0; i < q.length; i++) outside[q[i]]++;
  return {inside, outside};
}

export function scores({inside, outside}, k) {  // of the mask `q >= k`
  let tp = 0, marked = 0, car = 0, sum = 0, sure = 0, all = 0;
  for (let v = 0; v < 256; v++) {
    const n = inside[v] + outside[v];
    car += inside[v]; sum += n * v / 255; all += n;
    if (v >= k) { tp += inside[v]; marked += n; sure += n * v / 255; }
  }
  const dice = car + marked ? 2 * tp / (car + marked) : 1;
  return {dice, iou: dice / (2 - dice), area: marked, share: marked / all,
          expected: marked + sum ? 2 * sure / (marked + sum) : 1};
}

function spans(length, corner, scale, n) {  // photo pixels [from, to) under each of n screen pixels, and how many to skip
  const edge = k => clamp(Math.floor(corner + k / scale), 0, n);
  const from = Int32Array.from({length}, (_, k) => edge(k));
  const inside = k => corner + (k + 1) / scale > 0 && corner + k / scale < n;
  const to = Int32Array.from({length}, (_, k) => inside(k) ? Math.min(n, Math.max(from[k] + 1, edge(k + 1))) : from[k]);
  return {from, to, step: Math.max(1, Math.ceil(1 / scale / 8))};
}

function render(out, W, rows, cols, q, w, k, a, b, seam, [x0, x1, y0, y1]) {  // screen pixels: the mean of what lies under each
  for (let y = y0; y < y1; y++) {
    const top = rows.from[y], bottom = rows.to[y];
    for (let x = x0; x < x1; x++) {
      const left = cols.from[x], right = cols.to[x], {inside, outside} = x < seam ? a : b;
      if (bottom === top || right === left) { out[y * W + x] = 0; continue; }
      if (bottom - top === 1 && right - left === 1) { const i = top * w + left; out[y * W + x] = q[i] >= k ? inside[i] : outside[i]; continue; }
      let rb = 0, g = 0, n = 0;
      for (let v = top; v < bottom; v += rows.step) for (let i = v * w + left, end = v * w + right; i < end; i += cols.step) {
        const c = q[i] >= k ? inside[i] : outside[i];
        rb += c & 0xff00ff; g += c >> 8 & 255; n++;
      }
      out[y * W + x] = (255 << 24 | ((rb >>> 16) / n) << 16 | (g / n) << 8 | (rb & 0xffff) / n) >>> 0;
    }
  }
}

// ---- Classes and boundaries ----

export function shares(q, labels, n) {  // the same for each of n classes, whether car or not
  const each = Array.from({length: n}, () => new Float64Array(256));
  for (let i = 0; i < q.length; i++) each[labels[i] - 1][q[i]]++;
  return each;
}

export function boundary(q, w, h, k) {  // indices of mask pixels with a side against the background
  const out = [];
  for (let y = 0, i = 0; y < h; y++) for (let x = 0; x < w; x++, i++) {
    if (q[i] >= k && (x === 0 || y === 0 || x === w - 1 || y === h - 1 ||
        q[i - 1] < k || q[i + 1] < k || q[i - w] < k || q[i + w] < k)) out.push(i);
  }
  return out;
}

function gaps(from, to, w, h) {  // sum of the distances from each point to the nearest of `to`, found in cells of 16 pixels
  const S = 16, cols = Math.ceil(w / S), rows = Math.ceil(h / S), cells = new Map();
  for (const i of to) {
    const c = Math.floor((i / w | 0) / S) * cols + Math.floor(i % w / S);
    cells.has(c) ? cells.get(c).push(i) : cells.set(c, [i]);
  }
  let sum = 0;
  for (const i of from) {
    const x = i % w, y = i / w | 0, cx = x / S | 0, cy = y / S | 0;
    let best = Infinity;
    for (let r = 0; r <= Math.max(cols, rows) && best > ((r - 1) * S) ** 2; r++)
      for (let v = Math.max(0, cy - r); v <= Math.min(rows - 1, cy + r); v++)
        for (let u = cx - r; u <= cx + r; u += Math.abs(v - cy) === r ? 1 : Math.max(1, 2 * r))
          if (u >= 0 && u < cols) for (const j of cells.get(v * cols + u) ?? [])
            best = Math.min(best, (j % w - x) ** 2 + ((j / w | 0) - y) ** 2);
    sum += Math.sqrt(best);
  }
  return sum;
}

export function boundaryError(a, b, w, h) {  // average symmetric distance of two boundaries, pixels; NaN if they are noise
  if (!a.length || !b.length) return a.length === b.length ? 0 : Infinity;
  if (a.length + b.length > 60000) return NaN;
  return (gaps(a, b, w, h) + gaps(b, a, w, h)) / (a.length + b.length);
}

const STEPS = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -16, PageUp: 16, Home: -1e9, End: 1e9};  // of a slider
const PANS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
let made = 0;

class Picture {  // a photo, what the network says about it, what is true, and what was painted
  static async of(frame, photo) {
    const p = new Picture(), image = photo ?? await pixels(frame.photo);
    Object.assign(p, {frame, image, w: image.width, h: image.height, rgb: new Uint32Array(image.data.buffer), id: made++, version: 0});
    p.prob = await grey(frame.prob);
    for (const part of ['truth', 'before', 'gap', 'labels']) p[part] = frame[part] ? await grey(frame[part]) : null;
    return p;
  }
  stroke(s) {  // discs along the stroke: certainly car, or certainly not
    const {q, w, h} = this, r = s.radius;
    for (let n = 0; n < s.points.length; n++) {
      const [x1, y1] = s.points[n], [x0, y0] = s.points[Math.max(0, n - 1)];
      const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, r / 2)));
      for (let k = n ? 1 : steps; k <= steps; k++) {
        const cx = x0 + (x1 - x0) * k / steps, cy = y0 + (y1 - y0) * k / steps;
        for (let y = Math.max(0, Math.ceil(cy - r)); y <= Math.min(h - 1, cy + r); y++)
          for (let x = Math.max(0, Math.ceil(cx - r)); x <= Math.min(w - 1, cx + r); x++)
            if ((x - cx) ** 2 + (y - cy) ** 2 <= r * r) q[y * w + x] = s.value;
      }
    }
  }
  paint(strokes) {
    this.q = strokes.length ? this.prob.slice() : this.prob;
    for (const s of strokes) this.stroke(s);
    this.recount();
  }
  recount() {
    this.counts = count(this.q, this.truth);
    this.tiles = extremes(this.q, this.w, this.h);
    this.shares = this.labels && shares(this.q, this.labels, this.frame.classes.length);
    this.version++;
  }
  mask(k) { return Uint8Array.from(this.q, (v, i) => v >= k ? this.labels?.[i] ?? 1 : 0); }  // or the number of each class
  classOf(i) { return this.frame.classes[this.labels[i] - 1]; }
}

// ---- Views: each is two pictures, one shown where the mask is and one where it is not ----

function layers(p, view, opacity, background) {
  const n = p.rgb.length, {rgb, q, truth, before, gap, w} = p;
  const fill = f => { const out = new Uint32Array(n); for (let i = 0; i < n; i++) out[i] = f(i); return out; };
  const both = x => ({inside: x, outside: x});
  const mix = (v, a, [r, g, b]) => rgba((v & 255) * (1 - a) + r * a, (v >> 8 & 255) * (1 - a) + g * a, (v >> 16 & 255) * (1 - a) + b * a);
  const faded = v => { const y = ((v & 255) * 77 + (v >> 8 & 255) * 151 + (v >> 16 & 255) * 28) >> 9; return rgba(y + 64, y + 64, y + 64); };
  switch (view) {
    case 'overlay': return {inside: fill(i => mix(rgb[i], opacity, TINT)), outside: rgb};
    case 'classes': return {inside: fill(i => mix(rgb[i], opacity, p.classOf(i).colour)), outside: rgb};
    case 'mask': return {inside: new Uint32Array(n).fill(WHITE), outside: new Uint32Array(n).fill(BLACK)};
    case 'cutout': {
      const c = background && rgba(...[1, 3, 5].map(k => parseInt(background.slice(k, k + 2), 16)));
      const size = Math.max(4, w >> 6), light = rgba(236, 236, 236), dark = rgba(200, 200, 200);
      const board = i => ((i % w / size | 0) + ((i / w | 0) / size | 0)) & 1 ? light : dark;
      return {inside: rgb, outside: c ? new Uint32Array(n).fill(c) : fill(board)};
    }
    case 'heat': return both(fill(i => HEAT[q[i]]));
    case 'uncertainty': return both(fill(i => HEAT[255 - Math.abs(2 * q[i] - 255)]));
    case 'disagreement': return both(fill(i => HEAT[gap[i]]));
    case 'refinement': return both(fill(i => HEAT[Math.abs(q[i] - before[i])]));
    case 'difference': return {inside: fill(i => truth[i] ? faded(rgb[i]) : WRONG), outside: fill(i => truth[i] ? MISSED : faded(rgb[i]))};
    default: return both(rgb);
  }
}

const TILE = 32;  // pixels

function extremes(q, w, h) {  // least and greatest value in each tile: between two levels, few tiles change
  const cols = Math.ceil(w / TILE), low = new Uint8Array(cols * Math.ceil(h / TILE)).fill(255), high = new Uint8Array(low.length);
  for (let y = 0, i = 0; y < h; y++) for (let x = 0, row = (y / TILE | 0) * cols; x < w; x++, i++) {
    const t = row + (x / TILE | 0), v = q[i];
    if (v < low[t]) low[t] = v;
    if (v > high[t]) high[t] = v;
  }
  return {cols, low, high};
}

// ---- Small things of the page ----

function make(tag, props = {}, ...children) {
  const {data, aria, ...rest} = props, svg = ['svg', 'path', 'line', 'text', 'g', 'rect'].includes(tag);
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [k, v] of Object.entries(rest)) k.startsWith('on') || (!svg && k in node) ? node[k] = v : node.setAttribute(k, v);
  for (const [k, v] of Object.entries(aria ?? {})) node.setAttribute(k === 'role' ? k : `aria-${k}`, v);
  Object.assign(node.dataset, data);
  node.append(...children);
  return node;
}
function drag(node, across, move) {  // while it is held, tell where the pointer is, as a share of the width of `across`
  const tell = e => { const box = across.getBoundingClientRect(); move((e.clientX - box.left) / box.width); };
  node.onpointerdown = e => { node.setPointerCapture(e.pointerId); node.focus(); node.held = true; e.preventDefault(); tell(e); };
  node.onpointermove = e => { if (node.held) tell(e); };
  node.onpointerup = node.onpointercancel = () => { node.held = false; };
}
function forget(map, area) {  // the oldest entries, until the others have no more than KEPT pixels; the newest stays
  let sum = [...map.values()].reduce((n, x) => n + area(x), 0);
  for (const [key, x] of map) { if (sum <= KEPT || map.size === 1) return; map.delete(key); sum -= area(x); }
}
const clamp = (x, lo, hi) => Math.min(hi, Math.max(lo, x));
const later = (f, ms) => { let t; return (...a) => { clearTimeout(t); t = setTimeout(() => f(...a), ms); }; };
const quoted = s => /^[\w.\/~-]+$/.test(s) ? s : `'${s.replaceAll("'", `'\\''`)}'`;
const literal = v => v === true ? 'True' : v === false ? 'False' : typeof v === 'string' ? `'${v.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'` : String(v);

export class Still {  // replaces the widget's model where there is no kernel: in a saved page
  constructor(state) { this.state = state; this.heard = {}; }
  get(key) { return this.state[key]; }
  set(key, value) {
    if (this.state[key] === value) return;
    this.state[key] = value;
    for (const f of this.heard[`change:${key}`] ?? []) f();
  }
  on(event, f) { (this.heard[event] ??= []).push(f); }
  off() { this.heard = {}; }
  save_changes() {}
  send() {}
}

// ---- The explorer ----

class Explorer {
  constructor(model, el) {
    Object.assign(this, {model, el, pictures: new Map(), photos: new Map(), tables: new Map(), strokes: new Map(), thumbs: new Map(),
                         layer: new Map(), zoom: 1, x: 0, y: 0, tool: 'move', brush: 6, by: 'name', order: [], live: false, asked: 0, urls: []});
    this.build();
    this.tell = later(() => model.save_changes(), 100);
    this.measure = later(() => this.edgeError(), 150);
    this.resort = later(() => this.arrange(), 150);
    this.turn = later(() => { this.sort(this.by); this.load(); }, 200);
    this.change = {
      threshold: () => { this.draw(); this.resort(); }, view: () => this.draw(), other: () => this.draw(), split: () => this.draw(),
      opacity: () => this.draw(), background: () => this.draw(), index: () => this.load(), photos: () => this.strip(),
      settings: () => { this.forget(); this.turn(); }, frames: () => { this.strip(); this.load(); },
    };
    for (const [key, f] of Object.entries(this.change)) model.on(`change:${key}`, f);
    model.on('msg:custom', this.hear = (message, buffers) => this.receive(message, buffers));
    this.watch = new ResizeObserver(() => { if (this.fitted) this.fit(); this.draw(); });
    this.watch.observe(this.stage);
    this.strip();
    this.load();
    model.send({kind: 'hello'});
  }
  close() {
    this.watch.disconnect(); this.seen?.disconnect(); clearTimeout(this.timer); this.timer = null; this.closed = true;
    for (const [key, f] of Object.entries(this.change)) this.model.off(`change:${key}`, f);
    this.model.off('msg:custom', this.hear);
    this.urls.forEach(URL.revokeObjectURL);
  }
  get(key) { return this.model.get(key); }
  set(key, value) { this.model.set(key, value); this.tell(); }
  get level() { return level(this.get('threshold')); }
  get info() { return this.get('photos')[this.get('index')] ?? {name: ''}; }

  // -- what is on the page
  build() {
    const button = (label, title, onclick, data) => make('button', {type: 'button', title, onclick, data: {do: data}}, label);
    const slider = (key, label, min, max, step) => make('label', {}, label,
      make('input', {type: 'range', min, max, step, data: {key}, oninput: e => this.set(key, +e.target.value)}));
    const choice = (key, label, options) => make('label', {}, label, make('select', {data: {key}, onchange: e => this.set(key, e.target.value)},
      ...options.map(([value, text]) => make('option', {value}, text))));
    this.canvas = make('canvas', {tabIndex: 0, aria: {role: 'img'}, title: 'Click, then turn the wheel to zoom; drag to move. By keyboard: + and - zoom, arrows move what is zoomed, 0 shows the whole photo'});
    this.seam = make('div', {className: 'seam', tabIndex: 0, hidden: true, aria: {role: 'slider', label: 'Split between the two views', valuemin: 0, valuemax: 100}});
    this.wait = make('div', {className: 'wait', hidden: true}, 'computing ...');
    this.stage = make('div', {className: 'stage'}, this.canvas, this.seam, this.wait);
    this.legend = make('span', {className: 'legend'});
    this.pixel = make('span', {className: 'pixel'});
    this.line = make('div', {className: 'status', aria: {role: 'status', live: 'polite'}});
    this.numbers = make('dl', {className: 'numbers', aria: {label: 'Numbers'}});
    this.plot = make('svg', {viewBox: '0 0 256 150', role: 'slider', tabindex: 0, 'aria-label': 'Threshold', 'aria-valuemin': 0, 'aria-valuemax': 1, class: 'plot'});
    this.fields = make('div');
    const settings = make('details', {className: 'settings', open: true}, make('summary', {}, 'Network and CRF'), this.fields);
    this.list = make('div', {className: 'strip', aria: {role: 'group', label: 'Photos'}});
    const swatch = make('label', {}, 'Background', make('input', {type: 'color', value: '#ffffff', aria: {label: 'Colour behind the cut-out'}, oninput: e => this.set('background', e.target.value)}),
      button('Checkerboard', 'Show a checkerboard where the cut-out is transparent', () => this.set('background', ''), 'board'));
    this.only = [[['overlay', 'classes'], slider('opacity', 'Opacity', 0, 1, .05)], [['cutout'], swatch]];
    const tool = (name, label, title) => make('button', {type: 'button', title, data: {tool: name}, aria: {pressed: name === this.tool}, onclick: () => this.take(name)}, label);
    const bar = (label, ...children) => make('div', {className: 'bar', aria: {role: 'toolbar', label}}, ...children);
    const top = bar('Photo', button('‹', 'Previous photo (left arrow)', () => this.step(-1), 'previous'), button('›', 'Next photo (right arrow)', () => this.step(1), 'next'),
      button('Play', 'Show the views of this car one after another (space)', () => this.play(), 'play'),
      button('−', 'Zoom out (-)', () => this.zoomBy(1 / 1.5), 'out'), button('+', 'Zoom in (+)', () => this.zoomBy(1.5), 'in'),
      button('Fit', 'Show the whole photo (0)', () => { this.fit(); this.draw(); }, 'fit'), button('1:1', 'One photo pixel a screen pixel', () => this.zoomTo(1 / devicePixelRatio), 'one'),
      make('span', {className: 'name'}));
    const paint = bar('Correct', tool('move', 'Move', 'Drag to move the photo'), tool('brush', 'Brush', 'Mark as car'), tool('eraser', 'Eraser', 'Mark as background'),
      make('label', {}, 'Size', make('input', {type: 'range', min: 1, max: 60, value: this.brush, data: {key: 'brush'}, oninput: e => this.brush = +e.target.value})),
      button('Undo', 'Take back the last stroke (Ctrl+Z)', () => this.undo(), 'undo'), button('Redo', 'Paint it again (Ctrl+Y)', () => this.redo(), 'redo'),
      button('Save correction', 'Write the corrected mask as a new file', () => this.save('correction'), 'correction'));
    const take = bar('Save', button('Save mask', 'Write the mask as a new file', () => this.save('mask'), 'mask'), button('Save cut-out', 'Write the car on a transparent background as a new file', () => this.save('cutout'), 'cutout'),
      button('Copy command', 'Copy the command that makes this mask', () => this.copy(this.commandLine()), 'cli'), button('Copy Python', 'Copy the call that makes this mask', () => this.copy(this.pythonCall()), 'python'));
    this.panel = make('div', {className: 'panel'},
      bar('View', choice('view', 'View', []), choice('other', 'Beside it', []), ...this.only.map(([, node]) => node)),
      make('label', {className: 'threshold'}, 'Threshold', make('input', {type: 'range', min: 1, max: 255, step: 1, data: {key: 'threshold'}, oninput: e => this.set('threshold', halfway(+e.target.value))}), make('output', {})),
      this.plot, this.numbers, settings, take);
    const sort = make('label', {}, 'Sort by', make('select', {data: {key: 'sort'}, onchange: e => this.sort(e.target.value)},
      make('option', {value: 'name'}, 'name'), make('option', {value: 'dice'}, 'lowest Dice'), make('option', {value: 'confidence'}, 'lowest confidence')));
    this.root = make('section', {className: 'carvana-explorer', aria: {label: 'Mask explorer'}, data: {lmSuppressShortcuts: 'true'}, onkeydown: e => this.key(e)},
      make('div', {className: 'page'},
        make('div', {className: 'main'}, top, this.stage, make('div', {className: 'under'}, this.legend, this.pixel), paint),
        this.panel, make('div', {className: 'foot'}, make('div', {className: 'bar'}, sort, this.line), this.list)));
    this.find = selector => this.root.querySelector(selector);
    this.pointers();
    this.el.replaceChildren(this.root);
  }

  controls() {  // the settings that Python computes with; without a kernel they only show what was set
    const state = this.get('settings'), set = (name, value) => this.set('settings', {...this.get('settings'), [name]: value});
    const input = c => {
      const common = {data: {setting: c.name}, disabled: !this.live, title: c.help ?? ''};
      if (c.kind === 'choice') return make('select', {...common, onchange: e => set(c.name, c.choices[e.target.value])},
        ...c.choices.map((v, i) => make('option', {value: i, selected: v === state[c.name]}, c.labels?.[i] ?? v)));
      if (c.kind === 'check') return make('input', {...common, type: 'checkbox', checked: state[c.name], onchange: e => set(c.name, e.target.checked)});
      return make('input', {...common, type: 'number', min: c.min, max: c.max, step: c.step, value: state[c.name],
        onchange: e => e.target.checkValidity() && e.target.value ? set(c.name, +e.target.value) : this.say(`${c.label}: ${c.min} to ${c.max}`, true)});
    };
    for (const node of [this.fields.parentNode, this.find('[data-do=cli]'), this.find('[data-do=python]')]) node.hidden = !this.get('controls').length;  // the page has none
    const active = this.root.getRootNode().activeElement?.dataset?.setting;  // the field that has the focus keeps it
    this.fields.replaceChildren(...this.get('controls').map(c => make('label', {className: c.name === 'model' ? 'wide' : '', title: c.help ?? ''}, c.label, input(c))));
    if (active) this.find(`[data-setting=${active}]`)?.focus();
  }

  // -- which photo
  async load() {
    const index = this.get('index'), settings = JSON.stringify(this.get('settings')), key = `${index} ${settings}`;
    this.wanted = key;
    this.controls();
    this.mark();
    const kept = this.pictures.get(key), still = this.get('frames')[index];
    if (kept) return this.show(key, kept);
    try {
      if (still && !this.live && JSON.stringify(still.settings) === settings) return this.keep(key, await Picture.of(still));
    } catch (e) { return this.say(`${this.info.name}: cannot be shown (${e.message})`, true); }
    if (!this.live) return;
    this.wait.hidden = false;
    this.model.send({kind: 'frame', index, settings: this.get('settings'), key, photo: !this.photos.has(index)});
  }
  keep(key, picture) {
    this.pictures.set(key, picture);
    forget(this.pictures, p => p.w * p.h);
    if (key === this.wanted && !this.closed) this.show(key, picture);
  }
  show(key, picture) {
    this.pictures.delete(key); this.pictures.set(key, picture);  // the one used last goes last
    const fresh = this.picture?.w !== picture.w || this.picture?.h !== picture.h;
    this.picture = picture;
    this.wait.hidden = true;
    this.stage.style.aspectRatio = `${picture.w} / ${picture.h}`;
    picture.paint(this.done.list);
    this.tables.set(this.get('index'), {...picture.counts, confidence: picture.frame.confidence});
    const options = Object.entries(VIEWS).filter(([v]) => !NEEDS[v] || picture[NEEDS[v]]);
    const fill = (key, list) => this.find(`[data-key=${key}]`).replaceChildren(...list.map(([value, text]) => make('option', {value}, text)));
    fill('view', options); fill('other', [['', 'nothing'], ...options]);
    for (const key of ['view', 'other']) if (NEEDS[this.get(key)] && !picture[NEEDS[this.get(key)]]) this.set(key, key === 'view' ? 'overlay' : '');
    this.say('');
    if (fresh) this.fit();
    this.curve();
    this.draw();
    this.turned?.();
  }
  get done() {  // strokes of this photo, and those taken back
    const key = `${this.get('index')} ${this.info.name}`;
    if (!this.strokes.has(key)) this.strokes.set(key, {list: [], undone: []});
    return this.strokes.get(key);
  }
  step(by) {
    const at = this.order.indexOf(this.get('index'));
    this.set('index', this.order[(at + by + this.order.length) % this.order.length]);
  }
  play() {
    if (this.timer) { clearTimeout(this.timer); this.timer = this.turned = null; }
    else {
      const photos = this.get('photos'), car = this.info.car;
      const turn = [...photos.keys()].filter(i => !car || photos[i].car === car).sort((a, b) => photos[a].view - photos[b].view || a - b);
      const next = () => { this.timer = setTimeout(() => {
        const to = turn[(turn.indexOf(this.get('index')) + 1) % turn.length];
        if (to !== this.get('index')) this.set('index', to);
      }, 150); };
      this.turned = next;  // the next view comes when this one is seen
      next();
    }
    this.find('[data-do=play]').textContent = this.timer ? 'Stop' : 'Play';
  }
  score(i) {
    const still = !this.live && this.get('frames')[i], c = this.tables.get(i) ?? (still && {...still.counts, confidence: still.confidence});
    if (!c) return null;
    const s = scores(c, this.level);
    return {...s, confidence: c.confidence ?? s.expected};
  }
  forget() {  // other settings: what was counted with the last ones is no longer true
    if (!this.live) return;
    this.tables.clear();
    this.mark();
  }
  sort(by) {
    this.by = by;
    if (by !== 'name' && this.live) this.model.send({kind: 'rank', settings: this.get('settings'), key: JSON.stringify(this.get('settings'))});
    this.arrange();
  }
  arrange() {
    const value = i => this.by !== 'name' ? this.score(i)?.[this.by] ?? 2 : 0;
    const order = [...this.get('photos').keys()].sort((a, b) => value(a) - value(b) || a - b);
    if (order.join() !== this.order.join() || this.list.childElementCount !== order.length) this.list.append(...order.map(i => this.thumbs.get(i)));
    this.order = order;
    this.mark();
  }
  strip() {
    this.seen?.disconnect();
    this.seen = new IntersectionObserver(entries => {
      for (const e of entries) if (e.isIntersecting) {
        this.seen.unobserve(e.target);
        const index = +e.target.dataset.index, still = this.get('frames')[index]?.thumb;
        if (still) this.thumb(index, still); else if (this.live) this.model.send({kind: 'thumb', index});
      }
    }, {root: this.list, rootMargin: '200px'});
    this.thumbs = new Map(this.get('photos').map((p, i) => [i, make('button', {type: 'button', className: 'thumb', title: p.name, data: {index: i},
      aria: {label: p.name}, onclick: () => this.set('index', i)}, make('img', {alt: ''}), make('span', {}))]));
    this.list.replaceChildren(...this.thumbs.values());
    this.arrange();
    for (const t of this.thumbs.values()) this.seen.observe(t);
  }
  thumb(index, data) {
    const url = URL.createObjectURL(new Blob([octets(data)], {type: 'image/jpeg'}));
    this.urls.push(url);
    this.thumbs.get(index).firstChild.src = url;
  }
  mark() {
    const photos = this.get('photos'), here = this.get('index');
    for (const [i, t] of this.thumbs) {
      const s = this.score(i), text = s ? photos[i].truth ? `Dice ${s.dice.toFixed(4)}` : `conf. ${s.confidence.toFixed(4)}` : photos[i].view ? `view ${photos[i].view}` : '';
      if (i === here) t.setAttribute('aria-current', 'true'); else t.removeAttribute('aria-current');
      if (t.lastChild.textContent !== text) t.lastChild.textContent = text;
      t.setAttribute('aria-label', `${photos[i].name}${text && `, ${text.replace('conf.', 'confidence')}`}`);
    }
    this.find('.name').textContent = `${this.info.name} (${this.order.indexOf(here) + 1} of ${photos.length})`;
    const t = this.thumbs.get(here);
    if (t) this.list.scrollLeft = clamp(this.list.scrollLeft, t.offsetLeft + t.offsetWidth - this.list.clientWidth, t.offsetLeft);
  }

  // -- from Python
  async receive(message, buffers) {
    if (message.kind === 'live') { this.live = true; this.pictures.clear(); this.strip(); this.load(); }
    else if (message.kind === 'thumb') this.thumb(message.index, buffers[0]);
    else if (message.kind === 'counts') { if (message.key === JSON.stringify(this.get('settings'))) { this.tables.set(message.index, message); this.arrange(); } }
    else if (message.kind === 'say') { this.say(message.text, message.error); if (message.error) this.wait.hidden = true; }
    else if (message.kind === 'frame') {
      const frame = {...message, ...Object.fromEntries(message.parts.map((name, i) => [name, buffers[i]]))};
      const picture = await Picture.of(frame, frame.photo ? null : this.photos.get(message.index));
      this.photos.set(message.index, picture.image);
      forget(this.photos, image => image.width * image.height);
      this.keep(message.key, picture);
    }
  }
  say(text, error = false) { this.line.textContent = text; this.line.classList.toggle('error', error); }

  // -- drawing
  draw() { this.pending ??= requestAnimationFrame(() => { this.pending = null; if (!this.closed) this.paint(); }); }
  views() {
    const other = this.get('other');
    return [this.get('view'), other || this.get('view'), other ? this.get('split') : 1];
  }
  layerOf(view) {
    const p = this.picture, opacity = this.get('opacity'), background = this.get('background');
    const key = [p.id, p.version, view, (view === 'overlay' || view === 'classes') && opacity, view === 'cutout' && background].join();
    if (!this.layer.has(key)) {
      if (this.layer.size >= 2) this.layer.delete(this.layer.keys().next().value);
      this.layer.set(key, layers(p, view, opacity, background));
    }
    return this.layer.get(key);
  }
  paint() {
    const p = this.picture;
    if (!p || !this.canvas.clientWidth) return;  // hidden, as during a change of JupyterLab's theme: what is drawn stays
    const start = performance.now(), ratio = devicePixelRatio, {w, h, q} = p, k = this.level, [first, second, split] = this.views();
    const W = Math.max(1, Math.round(this.canvas.clientWidth * ratio)), H = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    if (this.canvas.width !== W || this.canvas.height !== H || !this.out) {
      Object.assign(this.canvas, {width: W, height: H});
      this.out = new ImageData(W, H);
    }
    const out = new Uint32Array(this.out.data.buffer), s = this.zoom * ratio, a = this.layerOf(first), b = this.layerOf(second);
    const left = this.x - W / 2 / s, top = this.y - H / 2 / s, seam = Math.round(split * W);  // the photo's point in the corner
    const bounded = first === 'boundary' || second === 'boundary', last = this.drawn;
    const key = [p.id, p.version, W, H, s, left, top, first, second, bounded && [k, seam]].join();
    const {cols, rows} = last?.key === key ? last : {cols: spans(W, left, s, w), rows: spans(H, top, s, h)};
    const draw = box => render(out, W, rows, cols, q, w, k, a, b, seam, box);
    if (last?.key === key && last.a === a && last.b === b) {
      this.changedTiles(last.k, k, cols, rows).forEach(draw);
      draw([Math.min(seam, last.seam), Math.max(seam, last.seam), 0, H]);
    } else draw([0, W, 0, H]);
    this.drawn = {key, a, b, k, seam, cols, rows};
    for (const [view, from, to] of [[first, 0, seam], [second, seam, W]]) if (view === 'boundary') this.edges(out, from, to, W, H, left, top, s);
    this.canvas.getContext('2d').putImageData(this.out, 0, 0);
    this.seam.hidden = !this.get('other');
    this.seam.style.left = `${split * 100}%`;
    this.seam.setAttribute('aria-valuenow', Math.round(split * 100));
    this.tellNumbers(performance.now() - start);
  }
  changedTiles(from, to, cols, rows) {  // boxes of the screen whose pixels may be other ones at level `to` than at `from`
    const p = this.picture, [low, high] = from < to ? [from, to] : [to, from], boxes = [];
    const under = ({from, to}, t) => {  // screen pixels over the photo's pixels of tile t
      let a = 0, b = from.length;
      while (a < b && to[a] <= t * TILE) a++;
      while (b > a && from[b - 1] >= (t + 1) * TILE) b--;
      return [a, b];
    };
    const across = Array.from({length: p.tiles.cols}, (_, t) => under(cols, t));
    for (let t = 0, ty = -1, down; t < p.tiles.low.length; t++) {
      const tx = t % p.tiles.cols;
      if (tx === 0) down = under(rows, ++ty);
      if (low !== high && p.tiles.low[t] < high && p.tiles.high[t] >= low) boxes.push([...across[tx], ...down]);
    }
    return boxes;
  }
  edges(out, from, to, W, H, left, top, s) {  // a screen pixel wide at least
    const {q, w, h} = this.picture;
    for (const i of boundary(q, w, h, this.level)) {
      const x = Math.floor((i % w - left) * s), y = Math.floor(((i / w | 0) - top) * s), size = Math.max(2, Math.ceil(s));
      for (let v = Math.max(0, y); v < Math.min(H, y + size); v++) for (let u = Math.max(from, x); u < Math.min(to, x + size); u++) out[v * W + u] = EDGE;
    }
  }
  tellNumbers(ms) {
    const p = this.picture, t = this.get('threshold'), s = scores(p.counts, this.level), {frame} = p, fixed = (x, n) => Number.isFinite(x) ? x.toFixed(n) : '–';
    const [a, b] = this.views(), names = a === b ? VIEWS[a] : `${VIEWS[a]} beside ${VIEWS[b]}`;
    this.ms = ms;
    this.root.dataset.ms = ms.toFixed(1);
    const rows = p.truth ? [['dice', 'Dice', s.dice.toFixed(5)], ['iou', 'IoU', s.iou.toFixed(5)], ['edge', 'Boundary error', p.edge?.k === this.level && p.edge.version === p.version ? `${fixed(p.edge.value, 2)} px` : '...']] : [];
    rows.push(['expected', 'Expected Dice', s.expected.toFixed(5)], ['area', 'Area', `${s.area.toLocaleString('en')} px, ${(100 * s.share).toFixed(2)} %`]);
    if (p.shares) rows.push(['classes', 'Parts of it', frame.classes.map(({name}, i) => `${name} ${this.areaOf(i).toLocaleString('en')}`).join(', ')]);
    if (p.before) rows.push(['changed', 'Changed by the CRF', `${this.changed().toLocaleString('en')} px`]);
    if (frame.confidence != null) rows.push(['confidence', 'Confidence', frame.confidence.toFixed(4)], ['uncertainty', 'Uncertainty', Object.entries(frame.uncertainty).map(([k, v]) => `${k} ${v.toFixed(4)}`).join(', ')]);
    const stages = {...frame.ms, drawing: ms};
    rows.push(['ms', 'Milliseconds', Object.entries(stages).map(([k, v]) => `${k} ${Math.round(v)}`).join(', ')]);
    rows.push(['size', 'Counted at', `${p.w} x ${p.h}${frame.size[0] !== p.w ? ` of ${frame.size.join(' x ')}` : ''}`]);
    const have = [...this.numbers.querySelectorAll('dd')];
    if (have.map(d => d.dataset.number).join() !== rows.map(r => r[0]).join())
      this.numbers.replaceChildren(...rows.flatMap(([key, label, text]) => [make('dt', {}, label), make('dd', {data: {number: key}}, text)]));
    else rows.forEach(([, , text], i) => { if (have[i].textContent !== text) have[i].textContent = text; });
    const controls = {view: a, other: this.get('other'), opacity: this.get('opacity'), threshold: this.level};
    for (const [key, v] of Object.entries(controls)) { const n = this.find(`[data-key=${key}]`); if (n.value !== String(v)) n.value = v; }
    for (const [views, node] of this.only) node.hidden = !views.includes(a) && !views.includes(b);
    this.find('.threshold output').textContent = t.toFixed(3);
    this.find('[data-do=undo]').disabled = !this.done.list.length;
    this.find('[data-do=redo]').disabled = !this.done.undone.length;
    const classes = a === 'classes' || b === 'classes' ? frame.classes : [], legend = [...new Set([LEGEND[a], LEGEND[b]])].join(' ');
    if (this.legend.dataset.of !== (this.legend.dataset.of = [a, b, ...classes.map(c => c.name)].join()))
      this.legend.replaceChildren(...classes.map(c => make('span', {className: 'swatch', style: `--colour: rgb(${c.colour})`}, c.name)), legend);
    this.canvas.setAttribute('aria-label', `${this.info.name}: ${names}. ${p.truth ? `Dice ${s.dice.toFixed(4)}, ` : ''}${(100 * s.share).toFixed(1)} % car at threshold ${t.toFixed(3)}`);
    this.plot.setAttribute('aria-valuenow', t.toFixed(3));
    const x = this.level - .5;
    for (const [k, v] of [['x1', x], ['x2', x]]) this.cursor?.setAttribute(k, v);
    if (p.truth && !(p.edge?.k === this.level && p.edge.version === p.version)) this.measure();
  }
  areaOf(i) { return this.picture.shares[i].subarray(this.level).reduce((a, n) => a + n, 0); }
  changed() {
    const {q, before} = this.picture, k = this.level;
    let n = 0;
    for (let i = 0; i < q.length; i++) if ((q[i] >= k) !== (before[i] >= k)) n++;
    return n;
  }
  edgeError() {
    const p = this.picture, k = this.level;
    if (this.closed || !p?.truth) return;
    p.border ??= boundary(p.truth, p.w, p.h, 1);
    p.edge = {k, version: p.version, value: boundaryError(boundary(p.q, p.w, p.h, k), p.border, p.w, p.h)};
    this.draw();
  }
  curve() {  // dice over the threshold above, the histogram of probabilities below, one line through both
    const {counts, truth} = this.picture, all = counts.inside.map((n, v) => n + counts.outside[v]), top = Math.log1p(Math.max(...all));
    const tall = truth ? 66 : 130, bars = list => 'M0 148' + [...list].map((n, v) => `V${(148 - tall * Math.log1p(n) / top).toFixed(1)}H${v + 1}`).join('') + 'V148Z';
    const parts = [make('path', {d: bars(all), class: 'all'}), make('text', {x: 254, y: truth ? 78 : 10, 'text-anchor': 'end'}, 'pixels by probability (log)')];
    if (truth) {
      const dice = Array.from({length: 255}, (_, k) => scores(counts, k + 1).dice), best = Math.max(...dice);
      const low = Math.min(best - .01, ...dice.slice(12, -12));  // the ends fall away in any case
      const y = d => (58 - 48 * clamp((d - low) / (best - low || 1), 0, 1)).toFixed(1), at = dice.indexOf(best);
      parts.push(make('path', {d: bars(counts.inside), class: 'car'}), make('path', {d: 'M' + dice.map((d, k) => `${k + .5} ${y(d)}`).join('L'), class: 'dice'}),
        make('text', {x: 2, y: 8}, `Dice score, best ${best.toFixed(5)} at ${halfway(at + 1).toFixed(3)}`), make('text', {x: 254, y: 66, 'text-anchor': 'end'}, `bottom: ${low.toFixed(3)}`));
    }
    this.cursor = make('line', {y1: 10, y2: 150, class: 'cursor'});
    this.plot.replaceChildren(...parts, this.cursor);
  }

  // -- zoom and move
  fit() {
    const p = this.picture;
    if (!p || !this.stage.clientWidth) return;
    this.least = Math.min(this.stage.clientWidth / p.w, this.stage.clientHeight / p.h);
    Object.assign(this, {zoom: this.least, x: p.w / 2, y: p.h / 2, fitted: true});
    this.canvas.style.touchAction = 'pan-y';
  }
  zoomTo(zoom, px = this.stage.clientWidth / 2, py = this.stage.clientHeight / 2) {  // the point under (px, py) stays
    if (!this.picture) return;
    const dx = px - this.stage.clientWidth / 2, dy = py - this.stage.clientHeight / 2, to = clamp(zoom, this.least, 64);
    this.x += dx / this.zoom - dx / to; this.y += dy / this.zoom - dy / to;
    this.zoom = to;
    this.fitted = to === this.least;
    this.canvas.style.touchAction = this.fitted ? 'pan-y' : 'none';
    this.within();
  }
  pan(dx, dy) {  // a tenth of what is seen
    this.x += dx * this.stage.clientWidth / 10 / this.zoom; this.y += dy * this.stage.clientHeight / 10 / this.zoom;
    this.within();
  }
  zoomBy(factor, px, py) { this.zoomTo(this.zoom * factor, px, py); }
  within() {  // never lose the photo
    const p = this.picture;
    if (this.fitted) this.fit();
    this.x = clamp(this.x, 0, p.w); this.y = clamp(this.y, 0, p.h);
    this.draw();
  }
  at(e) {  // the photo's point under the pointer
    const box = this.canvas.getBoundingClientRect();
    return [this.x + (e.clientX - box.left - box.width / 2) / this.zoom - .5, this.y + (e.clientY - box.top - box.height / 2) / this.zoom - .5];
  }
  pointers() {
    const c = this.canvas;
    let last = null, stroke = null;
    c.onpointerdown = e => {
      if (!this.picture || e.button) return;
      c.focus({preventScroll: true});
      c.setPointerCapture(e.pointerId);
      last = [e.clientX, e.clientY];
      if (this.tool !== 'move') {
        stroke = {points: [this.at(e)], radius: this.brush / 2, value: this.tool === 'brush' ? 255 : 0};
        if (this.picture.q === this.picture.prob) this.picture.q = this.picture.prob.slice();
        this.picture.stroke(stroke);
        this.drawn = null;
        this.draw();
      }
    };
    c.onpointermove = e => {
      this.point(e);
      if (!last) return;
      if (stroke) {
        stroke.points.push(this.at(e));
        this.picture.stroke({...stroke, points: stroke.points.slice(-2)});
        this.drawn = null;
        this.draw();
      } else {
        this.x -= (e.clientX - last[0]) / this.zoom; this.y -= (e.clientY - last[1]) / this.zoom;
        this.within();
      }
      last = [e.clientX, e.clientY];
    };
    c.onpointerup = c.onpointercancel = () => {
      if (stroke) {
        this.done.list.push(stroke);
        this.done.undone = [];
        this.painted();
      }
      last = stroke = null;
    };
    c.onpointerleave = () => this.pixel.textContent = '';
    c.addEventListener('wheel', e => {  // a page that is only scrolled past stays free to scroll
      if (c.getRootNode().activeElement !== c && !e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      const box = c.getBoundingClientRect();
      this.zoomBy(Math.exp(-clamp(e.deltaY, -100, 100) / 250), e.clientX - box.left, e.clientY - box.top);
    }, {passive: false});
    drag(this.seam, this.stage, x => this.set('split', clamp(x, 0, 1)));
    drag(this.plot, this.plot, x => this.set('threshold', halfway(Math.round(x * 256 + .5))));
  }
  point(e) {
    const p = this.picture, [x, y] = p ? this.at(e).map(Math.round) : [-1, -1];
    const here = p && x >= 0 && y >= 0 && x < p.w && y < p.h, i = y * p?.w + x;
    this.pixel.textContent = here ? `x ${x}, y ${y}: probability ${(p.q[i] / 255).toFixed(3)}${p.truth ? `, truth ${p.truth[i] ? 'car' : 'background'}` : ''}${p.labels && p.q[i] >= this.level ? `, ${p.classOf(i).name}` : ''}` : '';
  }
  key(e) {
    const typing = e.target.matches('input:not([type=range]):not([type=checkbox]), select'), arrows = e.target.matches('input[type=range]');
    const ctrl = e.ctrlKey || e.metaKey, letter = e.key.toLowerCase(), by = STEPS[e.key], [dx, dy] = PANS[e.key] ?? [];
    const act = () => {
      if (ctrl && letter === 'z') return e.shiftKey ? this.redo() : this.undo();
      if (ctrl && letter === 'y') return this.redo();
      if (ctrl || e.altKey || typing) return false;
      if (by && e.target === this.plot) return this.set('threshold', halfway(this.level + by));
      if (by && e.target === this.seam) return this.set('split', clamp(this.get('split') + by / 50, 0, 1));
      if (dx !== undefined && e.target === this.canvas && !this.fitted) return this.pan(dx, dy);
      if (dx && !arrows) return this.step(dx);
      if (e.key === ' ' && !e.target.matches('button, summary, input')) return this.play();
      if (e.key === '+' || e.key === '=') return this.zoomBy(1.5);
      if (e.key === '-') return this.zoomBy(1 / 1.5);
      if (e.key === '0') { this.fit(); return this.draw(); }
      return false;
    };
    if (act() !== false) e.preventDefault();
    e.stopPropagation();  // the notebook has keys of its own
  }

  // -- corrections and files
  take(tool) {
    this.tool = tool;
    for (const b of this.root.querySelectorAll('[data-tool]')) b.setAttribute('aria-pressed', b.dataset.tool === tool);
    this.canvas.style.cursor = tool === 'move' ? '' : 'crosshair';
  }
  painted() {
    this.picture.paint(this.done.list);
    this.tables.set(this.get('index'), {...this.picture.counts, confidence: this.picture.frame.confidence});
    this.curve();
    this.draw();
  }
  undo() { const s = this.done.list.pop(); if (s) { this.done.undone.push(s); this.painted(); } }
  redo() { const s = this.done.undone.pop(); if (s) { this.done.list.push(s); this.painted(); } }
  save(what) {
    const p = this.picture;
    if (!p) return;
    const mask = p.mask(this.level);
    if (this.live && !(this.model instanceof Still)) return this.model.send({kind: 'save', what, index: this.get('index'), size: [p.w, p.h], classes: !!p.labels}, undefined, [mask.buffer]);
    const image = new ImageData(p.w, p.h), out = new Uint32Array(image.data.buffer);
    for (let i = 0; i < out.length; i++) out[i] = what === 'cutout' ? (mask[i] ? p.rgb[i] : 0) : !mask[i] ? BLACK : p.labels ? rgba(...p.classOf(i).colour) : WHITE;
    const canvas = Object.assign(document.createElement('canvas'), {width: p.w, height: p.h});
    canvas.getContext('2d').putImageData(image, 0, 0);
    const name = this.info.name.replace(/\.\w+$/, '') + {mask: '', cutout: '_cutout', correction: '_corrected'}[what] + '_OUT.png';
    canvas.toBlob(blob => {
      if (!blob) return this.say(`${name}: the browser cannot write a PNG of ${p.w}x${p.h}; take another browser`, true);
      const url = URL.createObjectURL(blob);
      make('a', {href: url, download: name}).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
      this.say(`${name}: downloaded`);
    });
  }
  commandLine() {  // flags that are the default stay away
    const settings = this.get('settings'), words = ['carvana-predict', '-i', quoted(this.info.path)];
    for (const c of this.get('controls')) {
      const v = settings[c.name];
      if (c.kind === 'check') words.push(...(v ? [c.flag] : c.off ? [c.off] : []));
      else if (c.flags) words.push(...[c.flags[c.choices.indexOf(v)]].filter(Boolean));
      else if (c.flag) words.push(c.flag, quoted(String(v)));
    }
    return [...words, '-t', +this.get('threshold').toFixed(4)].join(' ') + (this.ownCRF() ? '  # but these CRF parameters can be set in Python only' : '');
  }
  ownCRF() { return this.get('settings').crf && this.get('controls').some(c => c.crf && this.get('settings')[c.name] !== c.default); }
  pythonCall() {
    const settings = this.get('settings'), controls = this.get('controls'), call = o => Object.entries(o).map(([k, v]) => `${k}=${v}`).join(', ');
    const words = Object.fromEntries(controls.filter(c => !c.crf && settings[c.name] !== false).map(c => [c.name, literal(settings[c.name])]));
    const crf = {...controls.find(c => c.name === 'crf').fixed, ...Object.fromEntries(controls.filter(c => c.crf).map(c => [c.name, settings[c.name]]))};
    words.crf = settings.crf ? `CRF(${call(crf)})` : 'False';
    return `Predictor(${call(words)}, threshold=${+this.get('threshold').toFixed(4)}).${this.picture?.labels ? 'classes' : 'mask'}(${literal(this.info.path)})`;
  }
  async copy(text) {
    this.say(text);
    await navigator.clipboard?.writeText(text).catch(() => {});  // refused in some pages: the line stays to be marked by hand
  }
}

// ---- A learning rate, chosen on the plot of `lr_find` ----

class Rates {
  constructor(model, el) {
    this.model = model;
    this.rates = model.get('rates'); this.losses = model.get('losses');
    this.tell = later(() => model.save_changes(), 100);
    this.ends = [this.rates[0], this.rates.at(-1)].map(Math.log10);
    const least = Math.min(...this.losses), most = Math.max(...this.losses.slice(0, this.losses.indexOf(least) + 1));
    this.range = [least, most > least ? most + (most - least) / 5 : least + 1];  // what diverges leaves the plot
    this.cursor = make('line', {y1: 4, y2: 134, class: 'cursor'});
    this.plot = make('svg', {viewBox: '0 0 256 150', role: 'slider', tabindex: 0, 'aria-label': 'Learning rate', 'aria-valuemin': this.rates[0], 'aria-valuemax': this.rates.at(-1), class: 'plot'},
      ...this.ticks(), make('path', {d: 'M' + this.rates.map((r, i) => `${this.x(r).toFixed(1)} ${this.y(this.losses[i]).toFixed(1)}`).join('L'), class: 'dice'}), this.cursor);
    const points = Object.entries(model.get('points')).map(([name, rate]) =>
      make('button', {type: 'button', data: {do: name}, title: `The rate that lr_find calls ${name}`, onclick: () => this.set(rate)}, `${name} ${rate.toExponential(1)}`));
    this.numbers = make('dl', {className: 'numbers', aria: {label: 'Numbers'}});
    el.replaceChildren(make('section', {className: 'carvana-explorer rates', aria: {label: 'Learning rate explorer'}, data: {lmSuppressShortcuts: 'true'}, onkeydown: e => this.key(e)},
      this.plot, make('div', {className: 'panel'}, this.numbers, make('div', {className: 'bar', aria: {role: 'toolbar', label: 'Suggestions'}}, ...points))));
    drag(this.plot, this.plot, x => this.set(10 ** (this.ends[0] + clamp((256 * x - 8) / 240, 0, 1) * (this.ends[1] - this.ends[0]))));
    model.on('change:rate', this.draw = this.draw.bind(this));
    this.draw();
  }
  close() { this.model.off('change:rate', this.draw); }
  x(rate) { return 8 + 240 * (Math.log10(rate) - this.ends[0]) / (this.ends[1] - this.ends[0]); }
  y(loss) { const [least, most] = this.range; return 130 - 122 * clamp((loss - least) / (most - least), 0, 9); }
  ticks() {  // a line for each power of ten
    const [lo, hi] = this.ends, all = Array.from({length: Math.floor(hi + 1e-9) - Math.ceil(lo - 1e-9) + 1}, (_, i) => Math.ceil(lo - 1e-9) + i);
    return all.flatMap(p => [make('line', {x1: this.x(10 ** p), x2: this.x(10 ** p), y1: 4, y2: 134, class: 'grid'}),
                             make('text', {x: this.x(10 ** p), y: 145, 'text-anchor': 'middle'}, `1e${p}`)]);
  }
  set(rate) { this.model.set('rate', +rate.toPrecision(3)); this.tell(); }
  nearest() { const to = Math.log(this.model.get('rate')); return this.rates.reduce((best, r, i) => Math.abs(Math.log(r) - to) < Math.abs(Math.log(this.rates[best]) - to) ? i : best, 0); }
  key(e) {
    const by = STEPS[e.key];
    if (by && e.target === this.plot) { this.set(this.rates[clamp(this.nearest() + by, 0, this.rates.length - 1)]); e.preventDefault(); }
    e.stopPropagation();
  }
  draw() {
    const rate = this.model.get('rate'), i = this.nearest(), x = this.x(rate);
    const a = Math.max(0, i - 3), b = Math.min(this.rates.length - 1, i + 3), slope = (this.losses[b] - this.losses[a]) / Math.log10(this.rates[b] / this.rates[a]);
    this.cursor.setAttribute('x1', x); this.cursor.setAttribute('x2', x);
    this.plot.setAttribute('aria-valuenow', rate);
    const rows = [['rate', 'learning rate', rate.toPrecision(3)], ['loss', 'loss there', this.losses[i].toPrecision(4)], ['slope', 'its change over a tenfold rate', slope.toPrecision(2)]];
    this.numbers.replaceChildren(...rows.flatMap(([name, label, text]) => [make('dt', {}, label), make('dd', {data: {number: name}}, text)]));
  }
}

const shown = (model, el) => new (model.get('rates') ? Rates : Explorer)(model, el);
export function mount(el, state) { return shown(new Still(state), el); }
export default {
  render({model, el}) {
    const explorer = shown(model, el);
    return () => explorer.close();
  },
};
