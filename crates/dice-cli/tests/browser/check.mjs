// Pages as they are in a browser: node check.mjs DICE [KEEP]
//
// Makes pages of the demo's data by the program DICE and opens each in a headless Chromium (CHROMIUM names it), narrow and wide, light
// and dark, with scripts and without, and as it is printed. Pictures and PDF are left in the folder KEEP where it is given.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Chromium } from "./chromium.mjs";

const [dice, keep] = process.argv.slice(2).map((path) => resolve(path));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
// The width of a sheet of A4 between the margins, in CSS pixels.
const SHEET = 718;

/** Makes the pages: the file of each, how many figures it has at least, and whether it has tables that sort. */
function made(temporary) {
  const folder = join(temporary, "demo");
  const run = (...words) => {
    const done = spawnSync(dice, words, { cwd: words[0] === "demo" ? temporary : folder, encoding: "utf8" });
    assert.equal(done.status, 0, `dice ${words.join(" ")}\n${done.error ?? ""}${done.stderr}`);
  };
  const line = (text) => run(...text.split(" "));
  run("demo", "--extract", folder);
  const detectors = ["dice(0.9) | energy", "energy", "msp", "react(0.9) | energy", "fisher(energy, msp)"];
  const all = detectors.flatMap((spec) => ["-d", spec]);
  run(..."fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -o d.safetensors --quiet".split(" "), ...all);
  const sets = "--ood near:letters=letters.safetensors --ood far:photos=photos.safetensors";
  line(`report d.safetensors --id test.safetensors ${sets} -o report.html --quiet`);
  line("report d.safetensors --id test.safetensors -o alone.html --quiet");
  const name = `<script>alert(1)</script>"'\u202e`.repeat(50) + "\n";
  run(..."report d.safetensors --id test.safetensors -o hostile.html --quiet --bootstrap 20 --no-ablations --ood".split(" "),
    `${name}=letters.safetensors`, "--ood", `${"long".repeat(2500)}=photos.safetensors`);
  for (const set of ["test", "letters"]) line(`score d.safetensors ${set}.safetensors -o ${set}.csv --quiet`);
  line("report --scores --id test.csv --ood letters=letters.csv -o scores.html --quiet");
  line("explain d.safetensors photos.safetensors --row 3 --training train.safetensors -o explain.html --quiet");
  mkdirSync(join(folder, "network"));
  for (const [from, to] of [["head", "head"], ["train", "id_train"], ["test", "id_test"], ["letters", "letters"]]) {
    writeFileSync(join(folder, "network", `${to}.safetensors`), readFileSync(join(folder, `${from}.safetensors`)));
  }
  line("paper network -o paper --quiet");
  return [
    { name: "report", file: "report.html", figures: 27, sorts: true },
    { name: "alone", file: "alone.html", figures: 6, sorts: false },
    { name: "hostile", file: "hostile.html", figures: 20, sorts: true },
    { name: "scores", file: "scores.html", figures: 4, sorts: true },
    { name: "explain", file: "explain.html", figures: 0, sorts: false },
    { name: "paper", file: "paper/report.html", figures: 16, sorts: true },
  ].map((page) => ({ ...page, url: pathToFileURL(join(folder, page.file)).href }));
}

/** What is wrong with the page that is open, seen from inside: text for each. */
function faults() {
  const wrong = [];
  if (/[\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)) wrong.push("a name turns the direction of text");
  const room = document.documentElement;
  if (room.scrollWidth > innerWidth) wrong.push(`it is ${room.scrollWidth} wide in a window of ${innerWidth}`);
  for (const figure of document.querySelectorAll("svg")) {
    const name = figure.querySelector("title")?.textContent ?? "no title";
    const box = figure.getBoundingClientRect();
    if (box.width < 200 || box.height < 100) wrong.push(`${name}: ${box.width} by ${box.height}`);
    if (figure.getAttribute("role") !== "img" || !figure.querySelector("desc")?.textContent) wrong.push(`${name}: no role or no description`);
    if (![...figure.querySelectorAll("path:not(.grid)")].some((path) => path.getTotalLength() > 0)) wrong.push(`${name}: nothing is drawn`);
    const texts = [...figure.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
    for (const [text, at] of texts) {
      if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1) {
        wrong.push(`${name}: '${text.textContent}' is cut`);
      }
    }
    texts.forEach(([one, a], place) => texts.slice(place + 1).forEach(([other, b]) => {
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4) {
        wrong.push(`${name}: '${one.textContent}' lies over '${other.textContent}'`);
      }
    }));
  }
  return wrong;
}

/** What is cut on paper. */
function cut() {
  const wrong = [...document.querySelectorAll("*")].filter((one) => !one.closest("svg") && one.getBoundingClientRect().right > innerWidth + 1);
  const paper = getComputedStyle(document.body).backgroundColor;
  const dark = ["rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"].includes(paper) ? [] : [`the paper is ${paper}`];
  return [...wrong.map((one) => `<${one.localName}> reaches to ${one.getBoundingClientRect().right}: ${one.textContent.slice(0, 40)}`).slice(0, 3), ...dark];
}

async function violations(tab) {
  // A page whose own scripts did not run stays as it is.
  await tab.send("Emulation.setScriptExecutionDisabled", { value: false });
  await tab.value(`${axe}; true`);
  return tab.value(`axe.run(document).then(({ violations }) => violations.map((one) =>
    one.id + ": " + one.nodes.slice(0, 2).map((node) => node.html.slice(0, 160) + " " + (node.any[0]?.message ?? "")).join(" and ")))`);
}

async function sorts(tab) {
  return tab.value(`(() => {
    const table = document.querySelector("table.sorts");
    const column = table.tHead.rows[0].cells.length - 1;
    const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.v));
    const head = table.tHead.rows[0].cells[column];
    head.querySelector("button").click();
    const rising = values(), said = head.getAttribute("aria-sort");
    head.querySelector("button").click();
    const is = (values, sign) => values.every((value, place) => place === 0 || sign * (value - values[place - 1]) >= 0);
    return is(rising, 1) && said === "ascending" && is(values(), -1) && head.getAttribute("aria-sort") === "descending";
  })()`);
}

async function check(tab, page) {
  const wrong = [];
  const told = (how, of) => wrong.push(...of.map((fault) => `${page.name}, ${how}: ${fault}`));
  for (const width of [1440, 390]) for (const dark of [false, true]) for (const scripts of [true, false]) {
    const how = `${width} px, ${dark ? "dark" : "light"}, scripts ${scripts ? "on" : "off"}`;
    await tab.load(page.url, { width, dark, scripts });
    told(how, await tab.value(`(${faults})()`));
    const figures = await tab.value(`document.querySelectorAll("svg").length`);
    if (figures < page.figures) told(how, [`${figures} figures in place of ${page.figures}`]);
    if (scripts && page.sorts && !(await sorts(tab))) told(how, ["the table does not sort"]);
    if (!scripts && (await tab.value(`document.querySelectorAll("button").length`))) told(how, ["buttons that do nothing"]);
    told(how, await violations(tab));
    const asked = tab.requests.filter((url) => url !== page.url && !url.startsWith("data:"));
    told(how, [...asked.map((url) => `it asks for ${url}`), ...tab.complaints]);
    if (keep && scripts) writeFileSync(join(keep, `${page.name}-${width}-${dark ? "dark" : "light"}.png`), await tab.picture());
  }
  await tab.load(page.url, { width: SHEET, dark: true, print: true });
  told("printed", await tab.value(`(${cut})()`));
  await tab.send("Emulation.setEmulatedMedia", { media: "", features: [{ name: "prefers-color-scheme", value: "dark" }] });
  const pdf = await tab.pdf();
  if (pdf.subarray(0, 5).toString() !== "%PDF-") told("printed", ["no PDF"]);
  if (keep) writeFileSync(join(keep, `${page.name}.pdf`), pdf);
  return wrong;
}

if (keep) mkdirSync(keep, { recursive: true });
const folder = mkdtempSync(join(tmpdir(), "dice-pages-"));
const browser = new Chromium(process.env.CHROMIUM ?? "chromium");
try {
  const pages = made(folder);
  const tab = await browser.open();
  const wrong = [];
  for (const page of pages) wrong.push(...(await check(tab, page)));
  for (const fault of wrong) console.error(fault);
  console.log(`${pages.length} pages, ${wrong.length} faults`);
  process.exitCode = wrong.length > 0 ? 1 : 0;
} finally {
  await browser.close();
  rmSync(folder, { recursive: true, force: true });
}
