// Looks at pages with Debian's Chromium: one JSON document on standard input, one on standard output.
//   {"chromium": path, "modules": folder of node_modules, "visits": [{"url", "scheme", "script", "width", "height",
//     "axe", "screenshot", "actions": [["click", selector], ["press", key], ["run", expression], ["wait", expression]]}]}
// Each visit has its own context. Replies hold what axe-core found, messages of the console, requests and sizes.
"use strict";
const fs = require("fs");
const path = require("path");
const job = JSON.parse(fs.readFileSync(0, "utf8"));
const { chromium } = require(path.join(job.modules, "playwright-core"));
const axe = fs.readFileSync(path.join(job.modules, "axe-core", "axe.min.js"), "utf8");

async function visit(browser, wanted) {
  const context = await browser.newContext({
    colorScheme: wanted.scheme || "light", javaScriptEnabled: wanted.script !== false,
    viewport: { width: wanted.width || 1280, height: wanted.height || 900 },
    bypassCSP: false, reducedMotion: "reduce",
  });
  const page = await context.newPage();
  const found = { url: wanted.url, messages: [], requests: [], bytes: 0, results: [] };
  const client = await context.newCDPSession(page);
  await client.send("Network.enable");
  client.on("Network.loadingFinished", (event) => { found.bytes += event.encodedDataLength; });
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) found.messages.push(message.text()); });
  page.on("pageerror", (error) => found.messages.push(String(error)));
  page.on("dialog", async (dialog) => { found.messages.push(`dialog: ${dialog.message()}`); await dialog.dismiss(); });
  context.on("request", (request) => found.requests.push(request.url()));
  const reply = await page.goto(wanted.url, { waitUntil: "load" });
  found.status = reply.status();
  for (const [verb, argument] of wanted.actions || []) {
    if (verb === "click") await page.click(argument);
    else if (verb === "press") await page.keyboard.press(argument);
    else if (verb === "wait") await waitFor(page, argument);
    else if (verb === "offline") await context.setOffline(argument);
    else found.results.push(await page.evaluate(argument));
  }
  found.title = await page.title();
  if (wanted.script !== false) {
    found.paint = await page.evaluate(() =>
      performance.getEntriesByType("paint").find((entry) => entry.name === "first-contentful-paint")?.startTime ?? null);
  }
  if (wanted.screenshot) await page.screenshot({ path: wanted.screenshot, fullPage: wanted.whole !== false });
  if (wanted.axe) found.violations = await judge(browser, page, wanted);
  await context.close();
  return found;
}

// Playwright's own waitForFunction evaluates a text inside the page, which the page's policy forbids.
async function waitFor(page, expression) {
  const end = Date.now() + 60000;
  while (!(await page.evaluate(expression))) {
    if (Date.now() > end) throw new Error(`never true: ${expression}`);
    await page.waitForTimeout(50);
  }
}

// Without script axe cannot run in the page: its markup and style are judged in a context that has script.
async function judge(browser, page, wanted) {
  let judged = page, context = null;
  if (wanted.script === false) {
    context = await browser.newContext({
      colorScheme: wanted.scheme || "light", viewport: { width: wanted.width || 1280, height: wanted.height || 900 },
      bypassCSP: true,
    });
    judged = await context.newPage();
    await judged.route("**/*.js", (route) => route.abort());
    await judged.goto(wanted.url, { waitUntil: "load" });
  }
  const client = await judged.context().newCDPSession(judged);
  const { frameTree } = await client.send("Page.getFrameTree");
  const world = await client.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
  const at = { contextId: world.executionContextId, awaitPromise: true, returnByValue: true };
  await client.send("Runtime.evaluate", { expression: axe, ...at });
  const answer = await client.send("Runtime.evaluate", {
    expression: `axe.run(document, { resultTypes: ["violations"] }).then((found) => found.violations.map((each) =>
      ({ id: each.id, impact: each.impact, nodes: each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200) + " | " + node.failureSummary) })))`,
    ...at,
  });
  if (answer.exceptionDetails) throw new Error(JSON.stringify(answer.exceptionDetails).slice(0, 500));
  if (context) await context.close();
  return answer.result.value;
}

(async () => {
  const browser = await chromium.launch({
    executablePath: job.chromium,
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-extensions", "--force-color-profile=srgb"],
  });
  const replies = [];
  for (const wanted of job.visits) replies.push(await visit(browser, wanted));
  await browser.close();
  process.stdout.write(JSON.stringify(replies));
})().catch((error) => { console.error(error); process.exit(1); });
