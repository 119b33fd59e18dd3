// As much of a browser as the modules of a log need, and waiting for what they do.
import assert from "node:assert/strict";

Object.assign(globalThis, {
  location: { hash: "", pathname: "/", search: "" },
  sessionStorage: { getItem: () => "t", setItem() {} },
  document: { hidden: false },
  requestAnimationFrame: (/** @type {() => void} */ draw) => setTimeout(draw, 1),
  cancelAnimationFrame: clearTimeout,
});

export const until = async (/** @type {() => boolean} */ is, what = "it did not happen") => {
  for (let n = 0; n < 2000; n += 1) {
    if (is()) return;
    await new Promise((done) => setTimeout(done, 5));
  }
  assert.fail(what);
};
