// The log of one node: search with its map, matches only, times, sizes, downloads, and output that wants to mislead.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { accessibilityProblems, launch, open, shoot, startDev, until, visit, WIDTHS } from "./harness.mjs";
import { api, lineRows, texts } from "./log-page.mjs";

/** @type {Awaited<ReturnType<typeof startDev>>} */
let dev;
/** @type {import("playwright-core").Browser} */
let browser;

// Two halves, a second apart, so that a time lies between them.
const LONG = `for n in $(seq 1 2000); do echo "line $n $([ $((n % 100)) = 0 ] && echo needle)"; done; sleep 1; seq -f 'later %g' 1 500; echo "the end is near"`;

/** What a command may write to mislead a reader or a page, as bytes; and what is to be seen of it. @type {[string, string][]} */
const HOSTILE = [
  ["invalid \xff\xfe\xc0\xaf end", "invalid \ufffd\ufffd\ufffd\ufffd end"],
  ["nul \0\0\0 end", "nul NUL ×3 end"],
  ["\x1b[2J\x1b[10;10Hcursor\x1b[1A\x1b[?1049h end", "CSI 2JCSI 10;10HcursorCSI 1ACSI ?1049h end"],
  ["\x1b]0;title\x07\x1bPdcs\x1b\\\x1b_apc\x1b\\\x1bc end", "OSC 0DCSAPCESC c end"],
  ["\x1b]8;;javascript:window.hacked=1\x1b\\link\x1b]8;;\x1b\\ end", "OSC 8linkOSC 8 end"],
  ["bidi \xe2\x80\xaegpj.exe\xe2\x80\xac \xe2\x81\xa6x\xe2\x81\xa9 end", "bidi RLOgpj.exePDF LRIxPDI end"],
  ["zero \xe2\x80\x8b\xe2\x80\x8b\xe2\x80\x8b\xef\xbb\xbf end", "zero ZWSP ×3BOM end"],
  [`marks Z${"\xcc\x81".repeat(200)} end`, `marks Z${"\u0301".repeat(4)}+196 end`],
  ["<script>window.hacked=1</script><img src=x onerror=window.hacked=1><svg/onload=window.hacked=1> end", "<script>window.hacked=1</script><img src=x onerror=window.hacked=1><svg/onload=window.hacked=1> end"],
  ["{{constructor}} ${hacked=1} &lt;b&gt; end", "{{constructor}} ${hacked=1} &lt;b&gt; end"],
  ["10%\r50%\r100% end", "100% end"],
  ["\x1b[31mred\x1b[0m \x1b[8mhidden\x1b[0m end", "red hidden end"],
];
const hostile = Buffer.from(HOSTILE.map(([bytes]) => `${bytes}\n`).join(""), "latin1").toString("base64");

// Beside it: 100 MiB without a newline; a million empty lines; lines of what is drawn as boxes.
const FLOODS = `case $SENTINEL_NODE in
sim-1) echo ${hostile} | base64 -d;;
sim-2) head -c 104857600 /dev/zero | tr '\\0' x;;
sim-3) yes '' | head -n 1000000; echo last;;
sim-4) for n in $(seq 60); do head -c 60000 /dev/zero; echo; yes "$(printf '\\007\\013\\342\\200\\256')" | head -n 10000 | tr -d '\\n'; echo; done;;
esac`;

before(async () => {
  dev = await startDev(["--nodes", "4"]);
  const { code, output } = await dev.run("run", "--name", "long", "--all", "--", "sh", "-c", LONG);
  assert.equal(code, 0, output);
  const floods = await dev.run("run", "--name", "floods", "--all", "--detach", "--", "sh", "-c", FLOODS);
  assert.equal(floods.code, 0, floods.output);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await dev?.stop();
});

const long = "tasks/default/long/runs/1/log?node=sim-1";

for (const theme of ["light", "dark"]) {
  for (const width of WIDTHS) {
    test(`hits, their map, and matches only, ${theme}, ${width}`, async () => {
      const { page, context, problems } = await open(browser, { theme, width });
      await visit(page, dev, `${long}&q=needle`);
      await page.waitForSelector("text=/^(\\d+ of )?20$/");
      await page.waitForSelector(".minimap .hits[d*='M3']");
      const marks = await page.getAttribute(".minimap .hits", "d");
      assert.equal(marks.match(/M/g).length, 20);
      // The first hit is line 100 of 2,501: a click there leads to it.
      const box = await page.locator(".minimap").boundingBox();
      await page.mouse.click(box.x + box.width / 2, box.y + (box.height * 100) / 2501);
      await page.waitForSelector("li:has(mark.now) >> text=line 100 needle");
      await page.waitForSelector("text=1 of 20");
      await page.keyboard.press("n");
      await page.waitForSelector("li:has(mark.now) >> text=line 200 needle");
      await page.keyboard.press("N");
      await page.waitForSelector("li:has(mark.now) >> text=line 100 needle");
      assert.deepEqual(await accessibilityProblems(page), []);
      await shoot(page, `log-hits-${theme}-${width}`);
      await page.keyboard.press("m");
      await page.waitForURL(/show=matches/);
      await until(async () => (await lineRows(page).count()) === 20, "twenty matches");
      assert.ok((await texts(page)).every((text) => text.includes("needle")));
      assert.deepEqual(await accessibilityProblems(page), []);
      await shoot(page, `log-matches-${theme}-${width}`);
      // A match leads to its place.
      await lineRows(page).nth(4).hover();
      if (width > 640) await lineRows(page).nth(4).locator("a.n").click();
      else {
        await page.keyboard.press("n");
        await page.keyboard.press("m");
      }
      const line = width > 640 ? 500 : 200;
      await page.waitForSelector(`li[aria-posinset='${line + 1}']`);
      assert.doesNotMatch(page.url(), /show=/);
      await page.waitForSelector(`li[aria-current] >> text=line ${line} needle`);
      assert.ok((await lineRows(page).count()) <= 300);
      assert.deepEqual(problems, []);
      await context.close();
    });
  }
}

test("times bound what is shown, and are in the address", async () => {
  const { page, context, problems } = await open(browser);
  await visit(page, dev, long);
  await page.waitForSelector("text=the end is near");
  const at = async (/** @type {number} */ line) => (await api(dev, `executions/${await uid("long")}/1/sim-1/lines?line=${line}&count=1`)).lines[0].atMicros / 1000;
  const between = new Date(((await at(2000)) + (await at(2001))) / 2).toISOString();
  await page.keyboard.press("r");
  await page.fill("dialog input >> nth=0", "soon");
  await page.click("dialog >> text=/^Show$/");
  await page.waitForSelector("dialog >> text=/Write a time/");
  assert.deepEqual(await accessibilityProblems(page), []);
  await page.fill("dialog input >> nth=0", between);
  await page.click("dialog >> text=/^Show$/");
  await page.waitForURL((url) => url.searchParams.get("since") === between);
  await page.waitForSelector("text=of 2,501");
  await page.keyboard.press("Home");
  await page.waitForSelector("li[aria-posinset='1'] >> text=/^later 1$/");
  assert.equal((await texts(page))[0], "later 1");
  // A search is within the times too.
  await page.fill("#filter", "line|later 4..$");
  await page.keyboard.press("Enter");
  await page.waitForSelector("text=/^(\\d+ of )?100$/");
  await shoot(page, "log-times");
  await visit(page, dev, `${long}&until=${between}`);
  await page.waitForSelector("text=What came later is not shown.");
  assert.equal((await texts(page)).at(-1)?.trim(), "line 2000 needle");
  assert.ok(!(await texts(page)).some((text) => text.startsWith("later")));
  await page.keyboard.press("Home");
  await page.waitForSelector("li[aria-posinset='1'] >> text=/^line 1 $/");
  assert.deepEqual(problems, []);
  await context.close();
});

test("sizes stay, lines wrap, and a log is saved in three forms", async () => {
  const { page, context, problems } = await open(browser);
  await visit(page, dev, long);
  await page.waitForSelector("text=the end is near");
  const font = () => page.locator(".log-view .rows").evaluate((list) => getComputedStyle(list).fontSize);
  const seen = [await font()];
  for (const key of ["+", "+", "-", "-", "-"]) {
    await page.keyboard.press(key);
    await until(async () => (await font()) !== seen.at(-1), `another size than ${seen.at(-1)}`);
    seen.push(await font());
  }
  assert.deepEqual(seen, ["12px", "13px", "15px", "13px", "12px", "11px"]);
  await page.reload();
  await page.waitForSelector("text=the end is near");
  assert.equal(await font(), "11px");
  await page.keyboard.press("w");
  await page.waitForSelector(".rows.wrap");
  for (const [name, holds] of [[".log", /^line 1 \n/], [".txt", /^\d{4}-\d\d-\d\dT\S+ /], [".jsonl", /^\{"/]]) {
    await page.click("text=Download…");
    assert.deepEqual(await accessibilityProblems(page), []);
    await shoot(page, "log-download");
    const waiting = page.waitForEvent("download");
    await page.click(`dialog button:has-text("${name}")`);
    const saved = await waiting;
    assert.equal(saved.suggestedFilename(), `long-1-sim-1${name}`);
    assert.match(await readFile(await saved.path(), "utf8"), holds);
  }
  assert.deepEqual(problems, []);
  await context.close();
});

test("End after Home stays at the end when the first lines come late", async () => {
  const { page, context, problems } = await open(browser);
  await visit(page, dev, long);
  await page.waitForSelector("text=the end is near");
  let answer = () => {};
  const held = new Promise((done) => (answer = () => done(null)));
  let asked = () => {};
  const isAsked = new Promise((done) => (asked = () => done(null)));
  await page.route(/\/lines\?.*line=1(&|$)/, async (route) => {
    asked();
    await held;
    await route.continue();
  });
  await page.keyboard.press("Home");
  await isAsked;
  await page.keyboard.press("End");
  const came = page.waitForResponse(/\/lines\?.*line=1(&|$)/);
  answer();
  await (await came).finished();
  // What is asked for next has its answer behind that one.
  await page.keyboard.press("PageUp");
  await page.keyboard.press("End");
  assert.ok((await texts(page)).includes("the end is near"));
  await page.unrouteAll();
  await page.keyboard.press("Home");
  await page.waitForSelector("li[aria-posinset='1']");
  assert.deepEqual(problems, []);
  await context.close();
});

test("a line above the screen whose end comes late is announced", async () => {
  const { page, context, problems } = await open(browser);
  const gate = `${dev.shared}/late`;
  const script = `printf 'still at it' >&2; until [ -e ${gate}.begin ]; do sleep 0.1; done; seq -f 'meanwhile %g' 1 400; until [ -e ${gate} ]; do sleep 0.1; done; echo ', done' >&2; until [ -e ${gate}.end ]; do sleep 0.1; done`;
  const started = await dev.run("run", "--name", "late", "--node", "sim-1", "--detach", "--", "sh", "-c", script);
  assert.equal(started.code, 0, started.output);
  await visit(page, dev, "tasks/default/late/runs/1/log?node=sim-1");
  // Two pipes have no order: the first line is there before the others are written.
  await page.waitForSelector("text=still at it…");
  await writeFile(`${gate}.begin`, "");
  await page.waitForSelector("text=meanwhile 400");
  await writeFile(gate, "");
  await page.waitForSelector("text=1 line above is complete now");
  assert.deepEqual(await accessibilityProblems(page), []);
  await shoot(page, "log-late-end");
  await page.click("text=1 line above is complete now");
  await page.waitForSelector("li[aria-current] >> text=still at it, done");
  await page.waitForSelector("text=above is complete now", { state: "detached" });
  await page.keyboard.press("End");
  await page.waitForSelector("text=meanwhile 400");
  await writeFile(`${gate}.end`, "");
  await page.waitForSelector("text=/^Succeeded, after/");
  assert.deepEqual(problems, []);
  await context.close();
});

/** A page of the log of a node that has written floods, when it has ended. @param {import("playwright-core").Page} page @param {string} node */
async function flood(page, node) {
  const path = `executions/${await uid("floods")}/1/${node}`;
  await until(async () => (await api(dev, path)).outcome === "Succeeded", `the end on ${node}`);
  await visit(page, dev, `tasks/default/floods/runs/1/log?node=${node}`);
  await page.waitForSelector("text=/^Succeeded, after/");
}

test("output that wants to mislead is shown as what it is", async () => {
  for (const theme of ["light", "dark"]) {
    const { page, context, problems } = await open(browser, { theme });
    await flood(page, "sim-1");
    assert.deepEqual(await texts(page), HOSTILE.map(([, seen]) => seen));
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.equal(await page.locator(".log-view :is(script, img, iframe, a:not(.n))").count(), 0);
    // A character that turns text turns nothing: each row begins at the same place.
    const lefts = await lineRows(page).locator(".t").evaluateAll((all) => new Set(all.map((one) => one.getBoundingClientRect().left)).size);
    assert.equal(lefts, 1);
    assert.deepEqual(await accessibilityProblems(page), []);
    await shoot(page, `log-hostile-${theme}`);
    assert.deepEqual(problems, []);
    await context.close();
  }
});

test("100 MiB without a newline, in parts", async () => {
  const { page, context, problems } = await open(browser);
  await flood(page, "sim-2");
  await page.waitForSelector("text=of 1,600");
  await page.keyboard.press("Home");
  await page.waitForSelector("li[aria-posinset='1']");
  assert.equal((await texts(page))[0].length, 65_536);
  // Parts have no number of their own, and say so.
  await page.waitForSelector("li[aria-posinset='2'] >> text=⋯");
  await shoot(page, "log-long-line");
  await page.keyboard.press("w");
  await page.keyboard.press(" ");
  await page.keyboard.press("End");
  await page.waitForSelector("text=/^Succeeded, after/");
  assert.deepEqual(problems, []);
  await context.close();
});

test("a million empty lines", async () => {
  const { page, context, problems } = await open(browser);
  await flood(page, "sim-3");
  await page.waitForSelector("text=of 1,000,001");
  assert.equal((await texts(page)).at(-1), "last");
  await page.locator(".log-view").evaluate((view) => (view.scrollTop = view.scrollHeight / 2));
  await page.waitForSelector("text=/^Line (499|500),[0-9]{3} to 500,/");
  assert.ok((await lineRows(page).count()) <= 300);
  assert.deepEqual(problems, []);
  await context.close();
});

// On a busy machine the first line does not always come back after Home: to be found.
test("lines full of controls are a bounded number of elements", async () => {
  const { page, context, problems } = await open(browser);
  await flood(page, "sim-4");
  await page.waitForSelector("text=/^NUL ×60,?000$/");
  const elements = await page.locator(".log-view .rows li .t").evaluateAll((all) => Math.max(...all.map((one) => one.childElementCount)));
  assert.ok(elements > 900 && elements <= 1001, `${elements} elements`);
  await page.keyboard.press("Home");
  await page.waitForSelector("li[aria-posinset='1']");
  await shoot(page, "log-controls");
  assert.deepEqual(problems, []);
  await context.close();
});

/** @param {string} name */
async function uid(name) {
  return (await api(dev, `tasks/default/${name}`)).metadata.uid;
}
