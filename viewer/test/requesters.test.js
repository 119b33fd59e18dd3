import assert from "node:assert/strict";
import { test } from "node:test";
import { requestedBy, requesterTitle } from "../page/requesters.js";

const alice = { user: "alice", uid: "u-1", groups: ["ops", "staff"] };

test("who asked is named, or unknown and never a guess", () => {
  assert.equal(requestedBy({ author: alice }), "alice");
  assert.equal(requestedBy({ author: alice, rerun: { user: "bob" } }), "bob (spec of alice)");
  assert.equal(requestedBy(null), "unknown");
  assert.equal(requestedBy({ author: alice, unknown: "RerunNotStamped" }), "unknown (RerunNotStamped)");
});

test("the title has what else is known of them", () => {
  assert.equal(requesterTitle({ author: alice }), "uid u-1; groups ops, staff");
  assert.equal(requesterTitle({ author: alice, rerun: { user: "bob" } }), undefined);
  assert.equal(requesterTitle({ author: alice, unknown: "Signature" }), undefined);
  assert.equal(requesterTitle(undefined), undefined);
});
