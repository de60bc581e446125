// Charts by uPlot: stacked, one time axis, one cursor, the viewer's zone.
import uPlot from "uplot";
import { token } from "./theme.js";
import { clock, currentZone, monthDay, zoneName } from "./times.js";

const LEFT = 64;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

export function startCharts() {
  const box = document.getElementById("chart");
  const source = document.getElementById("data-chart");
  if (!box || !source) return;
  let data = JSON.parse(source.textContent);
  let plots = [];
  const draw = () => {
    plots.forEach((plot) => plot.destroy());
    box.replaceChildren();
    plots = box.dataset.kind === "miner" ? drawMiner(box, data) : drawSite(box, data);
  };
  draw();
  document.getElementById("readout").textContent = hint(data);
  const stream = document.querySelector("[data-stream]");
  stream?.addEventListener("chart", (event) => {
    data = JSON.parse(event.detail.data);
    rows(box, data).forEach((row, place) => plots[place].setData(row));
  });
  stream?.addEventListener("tick", (event) => {
    const tick = JSON.parse(event.detail.data);
    if (tick.power === undefined || !data.power) return;
    const place = Math.floor((tick.t - data.t[0]) / data.step);
    if (place < 0 || place >= data.t.length) return;
    data.now = tick.t;
    data.power[place] = tick.power;
    plots[0].setData(rows(box, data)[0], true);
    plots[1]?.redraw();
  });
  for (const name of ["ballast:theme", "ballast:zone"]) document.addEventListener(name, draw);
  new ResizeObserver(() => {
    const width = box.clientWidth;
    for (const plot of plots) if (plot.width !== width && width > 0) plot.setSize({ width, height: plot.height });
  }).observe(box);
}

function rows(box, data) {
  if (box.dataset.kind === "miner") return [data.hashrate, data.power, data.temp].map((values) => [data.t, bridged(data, values)]);
  const plan = column(data.plan_steps, 1);
  const low = plan.map((value) => (value === null ? null : value - margin(value)));
  const high = plan.map((value) => (value === null ? null : value + margin(value)));
  const upper = join(data, bridged(data, data.power), data.plan_steps, [low, high, plan]);
  const lower = join(data, data.t.map(() => null), data.price_steps, [column(data.price_steps, 1)]);
  return [[upper[0], ...upper.slice(2), upper[1]], [lower[0], lower[2]]];
}

// The meter's buckets and the exact edges of slots on one axis.
function join(data, values, steps, lines) {
  if (!steps.length) return [data.t, values, ...lines.map(() => data.t.map(() => null))];
  return uPlot.join([[data.t, values], [column(steps, 0), ...lines]]);
}

function column(steps, place) {
  return steps.map((step) => step[place]);
}

function heldAt(steps, seconds) {
  let value = null;
  for (const [start, held] of steps) if (start <= seconds) value = held;
  return value;
}

// A miner that is read less often than a bucket is long is no gap: undefined draws on, null does not.
function bridged(data, values) {
  const drawn = [...values];
  let last = -1;
  values.forEach((value, place) => {
    if (value === null) return;
    if (last >= 0 && data.t[place] - data.t[last] <= data.bridge) drawn.fill(undefined, last + 1, place);
    last = place;
  });
  return drawn;
}

function margin(planned) {
  return Math.max(0.02, 0.03 * planned);
}

function drawSite(box, data) {
  const [power, price] = rows(box, data);
  const step = uPlot.paths.stepped({ align: 1 });
  const none = { points: { show: false } };
  const plan = token("--series-plan");
  const upper = common(box, data, box.clientWidth < 500 ? 220 : 300, "MW", [
    {},
    { ...none, paths: step, width: 0, stroke: "transparent" },
    { ...none, paths: step, width: 0, stroke: "transparent" },
    { ...none, paths: step, width: 2, stroke: plan, dash: [6, 4] },
    { ...none, width: 2, stroke: token("--series-actual"), spanGaps: false },
  ]);
  upper.bands = [{ series: [2, 1], fill: token("--plan-band") }];
  upper.scales.y.range = (_, low, high) => [Math.max(0, Math.min(low ?? 0, (high ?? 1) * 0.5) * 0.95), (high ?? 1) * 1.06];
  const lower = common(box, data, 130, "USD/MWh", [{}, { ...none, paths: step, width: 2, stroke: token("--series-price") }]);
  lower.scales.y.range = (_, low, high) => [Math.min(0, low ?? 0) * 1.1, Math.max(10, (high ?? 0) * 1.15)];
  return [new uPlot(upper, power, box), new uPlot(lower, price, box)];
}

function drawMiner(box, data) {
  const line = (stroke) => [{}, { width: 2, stroke: token(stroke), points: { size: 4 }, spanGaps: false }];
  const made = [["TH/s", "--series-actual"], ["W", "--series-third"], ["°C", "--series-price"]];
  return made.map(([unit, stroke], place) => {
    const options = common(box, data, 130, unit, line(stroke));
    options.scales.y.range = (_, low, high) => [Math.min(0, low ?? 0), Math.max(1, (high ?? 1) * 1.15)];
    return new uPlot(options, rows(box, data)[place], box);
  });
}

function common(box, data, height, unit, series) {
  const text = token("--text-2");
  const grid = { stroke: token("--hairline"), width: 1 };
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: text, font, grid, ticks: { show: false } };
  return {
    width: box.clientWidth,
    height,
    padding: [8, 28, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "ballast" }, drag: { x: true, y: false }, points: { size: 7 } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), currentZone()),
    scales: { x: {}, y: {} },
    series,
    axes: [
      { ...axis, size: 28, values: (plot, splits) => labels(splits), incrs: TIME_STEPS, space: 56 },
      { ...axis, size: LEFT, values: (plot, splits) => splits.map((value) => figure(value, splits)), label: unit, labelSize: 14, labelFont: font, labelGap: 0, space: 24 },
    ],
    hooks: {
      drawClear: [(plot) => drawWindows(plot, data)],
      draw: [(plot) => drawNow(plot, data)],
      setCursor: [(plot) => readOut(plot, data)],
    },
  };
}

function labels(splits) {
  const fine = splits.length > 1 && splits[1] - splits[0] < 60;
  return splits.map((seconds) => {
    const shown = clock(new Date(seconds * 1000), fine);
    return /^00:00(:00)?$/.test(shown) ? monthDay(new Date(seconds * 1000)) : shown;
  });
}

function figure(value, splits) {
  const step = splits.length > 1 ? Math.abs(splits[1] - splits[0]) : 1;
  const decimals = step >= 1 ? 0 : step >= 0.1 ? 1 : step >= 0.01 ? 2 : 3;
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replace("-", "−");
}

function drawWindows(plot, data) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = token("--window");
  for (const [start, end] of data.windows ?? []) {
    const left = Math.max(bbox.left, plot.valToPos(start, "x", true));
    const right = Math.min(bbox.left + bbox.width, plot.valToPos(end, "x", true));
    // A short curtailment stays visible in a long window.
    if (right > left) ctx.fillRect(left, bbox.top, Math.max(2 * devicePixelRatio, right - left), bbox.height);
  }
  if (data.unheard) hatchSince(plot, data);
  ctx.restore();
}

// Nothing was heard from then until now: hatched, as an unknown miner is.
function hatchSince(plot, data) {
  const { ctx, bbox } = plot;
  const left = Math.max(bbox.left, plot.valToPos(data.unheard, "x", true));
  const right = Math.min(bbox.left + bbox.width, plot.valToPos(nowOf(data), "x", true));
  if (right <= left) return;
  ctx.beginPath();
  ctx.rect(left, bbox.top, right - left, bbox.height);
  ctx.clip();
  ctx.strokeStyle = token("--unknown");
  ctx.globalAlpha = 0.5;
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  for (let at = left - bbox.height; at < right; at += 10 * devicePixelRatio) {
    ctx.moveTo(at, bbox.top + bbox.height);
    ctx.lineTo(at + bbox.height, bbox.top);
  }
  ctx.stroke();
}

function nowOf(data) {
  return data.now ?? new Date(document.querySelector("#as-of time").getAttribute("datetime")) / 1000;
}

function drawNow(plot, data) {
  if (!data.windows) return;
  const { ctx, bbox } = plot;
  const at = plot.valToPos(nowOf(data), "x", true);
  if (at < bbox.left || at > bbox.left + bbox.width) return;
  ctx.save();
  ctx.strokeStyle = token("--text-3");
  ctx.setLineDash([2, 3]);
  ctx.beginPath();
  ctx.moveTo(at, bbox.top);
  ctx.lineTo(at, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

function hint(data) {
  const series = data.windows ? [data.power, data.plan, data.price] : [data.hashrate, data.power, data.temp];
  const empty = series.every((values) => values.every((value) => value === null));
  return empty ? "Nothing is known of this time." : "Point at the chart to read it.";
}

function readOut(plot, data) {
  const place = plot.cursor.idx;
  const line = document.getElementById("readout");
  if (!line) return;
  if (place === null || place === undefined) {
    line.textContent = hint(data);
    return;
  }
  const seconds = plot.data[0][place];
  const bucket = data.step ? Math.min(data.t.length - 1, Math.floor((seconds - data.t[0]) / data.step)) : place;
  const at = new Date(seconds * 1000);
  const shown = (value, decimals, unit) => (value === null || value === undefined ? "not known" : `${value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replace("-", "−")} ${unit}`);
  const parts = data.windows
    ? [`meter ${shown(data.power[bucket], 3, "MW")}`, `plan ${shown(heldAt(data.plan_steps, seconds), 3, "MW")}`, `price ${shown(heldAt(data.price_steps, seconds), 2, "USD/MWh")}`]
    : [`hash rate ${shown(data.hashrate[place], 1, "TH/s")}`, `power ${shown(data.power[place], 0, "W")}`, `board ${shown(data.temp[place], 1, "°C")}`];
  line.textContent = `${clock(at, true)} ${zoneName(at)} · ${parts.join(" · ")}`;
}
