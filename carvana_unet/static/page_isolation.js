// Serves the page's own files with the headers that WebAssembly threads need; few servers send them. Nothing is stored.
addEventListener('install', () => skipWaiting());
addEventListener('fetch', event => event.respondWith(fetch(event.request).then(({body, status, statusText, headers}) => {
  const all = new Headers(headers);
  all.set('Cross-Origin-Opener-Policy', 'same-origin');
  all.set('Cross-Origin-Embedder-Policy', 'require-corp');
  return new Response(body, {status, statusText, headers: all});
})));
