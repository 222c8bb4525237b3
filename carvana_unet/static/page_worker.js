// The network of the page, in a worker: a photo in, its probability out. WebGPU where it works, else WebAssembly.
let ort, session, network, engine;

async function open(provider) {
  session = await ort.InferenceSession.create(network, {executionProviders: [provider], logSeverityLevel: 3});
  engine = provider === 'webgpu' ? 'WebGPU' : `WebAssembly, ${ort.env.wasm.numThreads} thread${ort.env.wasm.numThreads > 1 ? 's' : ''}`;
}

const jobs = {
  async start({library, wasm, network: bytes, threads}) {
    ort = await import(URL.createObjectURL(new Blob([library], {type: 'text/javascript'})));
    Object.assign(ort.env.wasm, {wasmBinary: wasm, numThreads: threads});
    ort.env.logLevel = 'error';  // what is optional in the graph is no reason to warn
    network = new Uint8Array(bytes);
    if (await navigator.gpu?.requestAdapter()) await open('webgpu').catch(() => open('wasm')); else await open('wasm');
  },
  async run({rgba, width, height}) {  // uint8 (H, W, 4) -> uint8 (H, W): 255 times the probability
    const rgb = new Uint8Array(3 * width * height);
    for (let i = 0, j = 0; i < rgba.length; i += 4) { rgb[j++] = rgba[i]; rgb[j++] = rgba[i + 1]; rgb[j++] = rgba[i + 2]; }
    const feed = () => session.run({photo: new ort.Tensor('uint8', rgb, [height, width, 3])}, ['probability']);
    const out = await feed().catch(async error => {
      if (engine !== 'WebGPU') throw error;
      await open('wasm');
      return feed();
    });
    const p = out.probability.data, prob = new Uint8ClampedArray(p.length);
    for (let i = 0; i < p.length; i++) prob[i] = Math.floor(255 * p[i] + .5);
    return {prob, engine};
  },
};

let last = Promise.resolve();  // one job at a time
onmessage = ({data: {id, kind, ...job}}) => {
  last = last.then(() => jobs[kind](job)).then(value => postMessage({id, value}, value ? [value.prob.buffer] : []),
    error => postMessage({id, error: String(error?.message ?? error)}));
};
