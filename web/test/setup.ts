/** The little of a browser that the tested modules touch when they are loaded. */
const query = { matches: false, addEventListener: () => {} };
Object.assign(globalThis, {
  matchMedia: () => query,
  document: { documentElement: { dataset: {} } },
  localStorage: { getItem: () => null, setItem: () => {}, removeItem: () => {} },
});
