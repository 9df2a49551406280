/** The little of a browser that the tested modules touch when they are loaded; where there is a DOM, what it lacks. */
const query = { matches: false, addEventListener: () => {} };
Object.assign(globalThis, { matchMedia: () => query });
if (typeof document === "undefined")
  Object.assign(globalThis, {
    document: { documentElement: { dataset: {} } },
    localStorage: { getItem: () => null, setItem: () => {}, removeItem: () => {} },
  });
