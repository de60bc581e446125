// The console's own link: a banner when nothing has arrived for too long, with the age of what is shown.
import { age } from "./times.js";

const SILENT_MS = 12000;

export function startLink() {
  const stream = document.querySelector("[data-stream]");
  if (!stream) return;
  const banner = document.getElementById("link-banner");
  const fact = document.getElementById("banner-fact");
  const detail = document.getElementById("banner-detail");
  const action = document.getElementById("banner-action");
  const word = document.getElementById("live-text");
  let heard = Date.now();
  let asOf = new Date(document.querySelector("#as-of time").getAttribute("datetime"));
  let trouble = null;
  let ended = false;
  let connection = null;

  function alive() {
    heard = Date.now();
    update();
  }
  function update() {
    const silent = Date.now() - heard > SILENT_MS && !document.hidden;
    const lost = silent || trouble !== null || ended;
    document.documentElement.dataset.link = lost ? "lost" : "live";
    banner.hidden = !lost;
    word.textContent = lost ? "not live" : "live";
    if (!lost) return;
    fact.textContent = ended ? "Your session has ended." : (trouble ?? "Console link lost.");
    action.hidden = !ended;
    const seconds = Math.max(0, Math.round((Date.now() - asOf) / 1000));
    detail.textContent = `Figures are last known, ${age(seconds)} old. Sites keep following the plan they hold.`;
    if (silent && connection?.reader) connection.reader.cancel(); // half open: make htmx connect again
  }
  stream.addEventListener("heartbeat", alive);
  stream.addEventListener("tick", (event) => {
    const tick = JSON.parse(event.detail.data);
    trouble = null;
    asOf = new Date(tick.as_of);
    document.querySelector("#as-of time").setAttribute("datetime", tick.as_of);
    alive();
  });
  stream.addEventListener("trouble", (event) => {
    trouble = JSON.parse(event.detail.data).fact;
    alive();
  });
  stream.addEventListener("signed-out", () => {
    ended = true;
    update();
  });
  document.addEventListener("htmx:sse:after:connection", (event) => {
    connection = event.detail.connection;
    alive();
  });
  document.addEventListener("htmx:sse:error", (event) => {
    if (event.detail.status === 401) ended = true;
    update();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) alive();
  });
  setInterval(update, 1000);
}
