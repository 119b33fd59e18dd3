import assert from "node:assert/strict";
import { test } from "node:test";
import { userOf } from "../page/words.js";

test("a command runs as the user that its sandbox leaves it", () => {
  assert.equal(userOf({ user: "backup" }), "backup");
  assert.equal(userOf({}), "user 65534");
  assert.equal(userOf({ sandbox: "Baseline" }), "the agent's user");
  assert.equal(userOf({ environment: "Host" }), "the agent's user");
  assert.equal(userOf({ environment: "Host", sandbox: "Restricted" }), "user 65534");
});
