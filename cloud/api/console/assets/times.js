// Every <time> in one zone, the viewer's choice; UTC on hover and focus; ages grow by themselves.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

let zone;

export function currentZone() {
  return zone;
}

export function startTimes() {
  const choice = document.getElementById("zone");
  const site = choice?.dataset.siteZone.trim();
  let kept = localStorage.getItem("zone") || "viewer";
  if (choice) {
    if (!site) choice.querySelector("option[value=site]").remove();
    if (kept === "site" && !site) kept = "viewer";
    choice.value = kept;
    choice.addEventListener("change", () => {
      localStorage.setItem("zone", choice.value);
      zone = pick(choice.value, site);
      showAll();
      document.dispatchEvent(new CustomEvent("ballast:zone"));
    });
  }
  zone = pick(kept, site);
  showAll();
  // Swapped regions arrive with UTC text: put right before they are painted.
  new MutationObserver((changes) => {
    for (const change of changes) {
      const element = change.target.nodeType === 1 ? change.target : change.target.parentElement;
      for (const time of element?.querySelectorAll("time") ?? []) show(time);
      if (element?.closest("time")) show(element.closest("time"));
    }
  }).observe(document.getElementById("main"), { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["datetime"] });
  setInterval(() => document.querySelectorAll("time[data-form=age]").forEach(show), 1000);
}

function pick(choice, site) {
  if (choice === "utc") return "UTC";
  return (choice === "site" && site) || Intl.DateTimeFormat().resolvedOptions().timeZone;
}

function showAll() {
  document.querySelectorAll("time").forEach(show);
}

export function clock(moment, seconds = false) {
  const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zone };
  if (seconds) parts.second = "2-digit";
  return new Intl.DateTimeFormat("en-GB", parts).format(moment);
}

export function monthDay(moment) {
  return new Intl.DateTimeFormat("en-CA", { month: "2-digit", day: "2-digit", timeZone: zone }).format(moment);
}

export function zoneName(moment) {
  const options = { timeZone: zone, timeZoneName: "short" };
  const named = new Intl.DateTimeFormat("en-US", options).formatToParts(moment);
  return named.find((part) => part.type === "timeZoneName").value;
}

function show(time) {
  const moment = new Date(time.getAttribute("datetime"));
  if (Number.isNaN(moment.getTime())) return;
  const utc = `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  if (time.title !== utc) time.title = utc;
  const text = word(time.dataset.form, moment);
  if (time.textContent !== text) time.textContent = text;
}

function word(form, moment) {
  const seconds = Math.max(0, Math.round((Date.now() - moment) / 1000));
  const lost = document.documentElement.dataset.link === "lost";
  if (form === "age" && !lost && seconds < 86400) return seconds < 2 ? "just now" : `${age(seconds)} ago`;
  const day = new Intl.DateTimeFormat("en-CA", { timeZone: zone }).format(moment);
  const today = new Intl.DateTimeFormat("en-CA", { timeZone: zone }).format(new Date());
  const dated = form === "date" || form === "exact";
  const near = !dated && day === today;
  const shown = `${clock(moment, form !== "time" && form !== "date")} ${zoneName(moment)}`;
  return near ? shown : `${dated ? day : day.slice(5)} ${shown}`;
}

export function age(seconds) {
  const parts = [];
  for (const [size, unit] of UNITS) {
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    if (count) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}
