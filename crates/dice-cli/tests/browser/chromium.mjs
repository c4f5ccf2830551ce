// A headless Chromium, spoken to by its DevTools protocol over two pipes: no package is needed for it.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// A page that has not answered by then never will.
const PATIENCE_MS = 60_000;

export class Chromium {
  #process; #folder; #left = ""; #number = 0; #waiting = new Map(); #events = [];

  constructor(program) {
    this.#folder = mkdtempSync(join(tmpdir(), "dice-chromium-"));
    const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe", `--user-data-dir=${this.#folder}`];
    this.#process = spawn(program, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    const [, , , , answers] = this.#process.stdio;
    answers.setEncoding("utf8");
    answers.on("data", (text) => this.#read(text));
    const lost = () => this.#waiting.forEach(({ reject }) => reject(new Error(`${program} went away`)));
    this.#process.on("error", lost).on("exit", lost);
  }

  #read(text) {
    const messages = (this.#left + text).split("\0");
    this.#left = messages.pop();
    for (const message of messages.map((message) => JSON.parse(message))) {
      const waiting = this.#waiting.get(message.id);
      if (!waiting) { this.#events.forEach((event) => event(message)); continue; }
      this.#waiting.delete(message.id);
      message.error ? waiting.reject(new Error(`${waiting.method}: ${message.error.message}`)) : waiting.resolve(message.result);
    }
  }

  send(method, params = {}, sessionId = undefined) {
    const id = ++this.#number;
    this.#process.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: no answer`)), PATIENCE_MS);
      const settled = (settle) => (value) => { clearTimeout(timer); settle(value); };
      this.#waiting.set(id, { method, resolve: settled(resolve), reject: settled(reject) });
    });
  }

  on(listener) { this.#events.push(listener); }

  async open() {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab(this, sessionId);
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await tab.send(`${domain}.enable`);
    return tab;
  }

  async close() {
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    await this.send("Browser.close").catch(() => {});
    await gone;
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

export class Tab {
  // What the page asked for, and what the browser complained of, since it was last opened.
  requests = []; complaints = [];
  #browser; #session; #loaded = () => {};

  constructor(browser, session) {
    this.#browser = browser;
    this.#session = session;
    browser.on(({ method, params, sessionId }) => {
      if (sessionId !== session) return;
      if (method === "Page.loadEventFired") this.#loaded();
      if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
      if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.text);
      if (method === "Log.entryAdded") this.complaints.push(params.entry.text);
      if (method === "Page.javascriptDialogOpening") this.complaints.push(`a dialogue: ${params.message.slice(0, 80)}`);
    });
  }

  send(method, params) { return this.#browser.send(method, params, this.#session); }

  async load(url, { width, dark = false, scripts = true, print = false }) {
    this.requests = []; this.complaints = [];
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await this.send("Emulation.setDeviceMetricsOverride", { width, height: 1000, deviceScaleFactor: 1, mobile: false });
    await this.send("Emulation.setEmulatedMedia", { media: print ? "print" : "", features });
    await this.send("Emulation.setScriptExecutionDisabled", { value: !scripts });
    const loaded = new Promise((resolve) => { this.#loaded = resolve; });
    await this.send("Page.navigate", { url });
    await loaded;
  }

  // What `code` is worth inside the page, as JSON can say it.
  async value(code) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression: code, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async picture() {
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: true, optimizeForSpeed: true });
    return Buffer.from(data, "base64");
  }

  async pdf() {
    const { data } = await this.send("Page.printToPDF", { printBackground: true, paperWidth: 8.27, paperHeight: 11.69 });
    return Buffer.from(data, "base64");
  }
}
