// The rack map: one canvas, three modes, a mismatch marked in each, a cell cursor for the keyboard.
import { token } from "./theme.js";

const RUNNING = 0, STOPPED = 1, MISMATCH = 2, OFF = 3, UNKNOWN = 4;
const WORDS = ["running", "stopped by plan", "should be off, is on", "should run, is off", "not known"];
const NONE = 255, LIAR = 8;

export function startRacks() {
  const box = document.getElementById("racks");
  const source = document.getElementById("data-racks");
  if (!box || !source) return;
  const map = new RackMap(box, JSON.parse(source.textContent));
  const stream = document.querySelector("[data-stream]");
  stream?.addEventListener("racks", (event) => map.receive(JSON.parse(event.detail.data)));
  document.addEventListener("ballast:theme", () => map.draw());
  new ResizeObserver(() => map.resize()).observe(box);
  for (const button of document.querySelectorAll("#rack-modes button")) {
    button.addEventListener("click", () => {
      for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
      map.mode = button.dataset.mode;
      map.draw();
    });
  }
}

// As near to square as leaves no ragged last row.
function columnsFor(size) {
  if (size <= 5) return size;
  const square = Math.sqrt(size);
  let best = Math.ceil(square), least = Infinity;
  for (let columns = Math.max(4, Math.floor(square * 0.7)); columns <= square * 2; columns++) {
    const cost = (Math.ceil(size / columns) * columns - size) + Math.abs(columns - square) / 4;
    if (cost < least) { best = columns; least = cost; }
  }
  return best;
}

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

class RackMap {
  constructor(box, data) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.readout = document.getElementById("rack-readout");
    this.mode = "temperature";
    this.cursor = -1;
    this.ids = null;
    this.take(data);
    this.resize();
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerleave", () => this.select(-1));
    box.addEventListener("click", (event) => { this.point(event); this.open(); });
    box.addEventListener("keydown", (event) => this.key(event));
  }

  take(data) {
    this.layout = data.layout;
    this.racks = data.racks;
    this.cells = bytes(data.cells);
    this.count = this.cells.length / 3;
    this.rackOf = new Uint16Array(this.count);
    let first = 0;
    this.racks.forEach(([, size], rack) => { this.rackOf.fill(rack, first, first + size); first += size; });
  }

  receive(data) {
    if (data.changes) {
      const changes = bytes(data.changes);
      for (let at = 0; at < changes.length; at += 5) {
        this.cells.set(changes.subarray(at + 2, at + 5), 3 * (changes[at] | (changes[at + 1] << 8)));
      }
      this.draw();
      if (this.cursor >= 0) this.tell();
      return;
    }
    if (data.layout !== this.layout) { this.ids = null; this.cursor = -1; }
    this.take(data);
    this.resize();
  }

  async names() {
    if (this.ids?.layout === this.layout) return;
    this.ids = { layout: this.layout, miner_ids: [] };
    const answer = await fetch(`/api/v1/sites/${encodeURIComponent(this.box.dataset.site)}/racks/${this.layout}`);
    if (!answer.ok) { this.ids = null; return; }
    this.ids = await answer.json();
    if (this.cursor >= 0) this.tell();
  }

  // Racks in reading order: a caption, then its cells, wrapped to the width there is; cells as large as keep it low.
  resize() {
    const width = this.box.clientWidth;
    if (!width) return;
    for (this.size = 20; this.size > 7; this.size--) if (this.place(width) <= 420) break;
    this.width = width;
    this.height = this.place(width);
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.height = `${this.height}px`;
    this.draw();
  }

  // Puts every cell where it stands at the present size; returns the height that takes.
  place(width) {
    const biggest = Math.max(1, ...this.racks.map(([, size]) => size));
    this.columns = Math.min(Math.floor((width - 8) / this.size), columnsFor(biggest));
    this.places = [];
    this.captions = [];
    const gap = 12, caption = 18, widest = Math.max(this.columns * this.size, 44);
    let left = 0, top = 0, tall = 0;
    for (const [name, size] of this.racks) {
      const height = caption + Math.ceil(size / this.columns) * this.size;
      if (left > 0 && left + widest > width) { left = 0; top += tall + gap; tall = 0; }
      this.captions.push([name, left, top + 12, widest + gap - 4]);
      for (let place = 0; place < size; place++) {
        this.places.push([left + (place % this.columns) * this.size, top + caption + Math.floor(place / this.columns) * this.size]);
      }
      left += widest + gap;
      tall = Math.max(tall, height);
    }
    return Math.max(1, top + tall + 2);
  }

  draw() {
    const ctx = this.canvas.getContext("2d");
    const ratio = devicePixelRatio || 1;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, this.width, this.height);
    const paint = palette();
    ctx.font = "12px system-ui, sans-serif";
    ctx.fillStyle = token("--text-2");
    for (const [name, left, top, room] of this.captions) ctx.fillText(fit(ctx, name, room), left, top);
    const side = this.size - (this.size > 9 ? 2 : 1);
    for (let cell = 0; cell < this.count; cell++) this.cell(ctx, paint, cell, side);
    if (this.cursor >= 0) {
      const [x, y] = this.places[this.cursor];
      ctx.strokeStyle = token("--accent");
      ctx.lineWidth = 2;
      ctx.strokeRect(x - 1, y - 1, side + 2, side + 2);
    }
    this.legend(paint);
  }

  cell(ctx, paint, cell, side) {
    const [x, y] = this.places[cell];
    const kind = this.cells[3 * cell] & 7;
    const [fill, outline] = this.colour(paint, cell, kind);
    if (kind === UNKNOWN) {
      hatch(ctx, paint.unknown, x, y, side);
      return;
    }
    ctx.fillStyle = fill;
    ctx.fillRect(x, y, side, side);
    if (outline) {
      ctx.strokeStyle = outline;
      ctx.lineWidth = 1;
      ctx.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
    }
    if (kind === MISMATCH) {
      ctx.strokeStyle = paint.line;
      ctx.lineWidth = 1.5;
      ctx.strokeRect(x - 0.5, y - 0.5, side + 1, side + 1);
      mark(ctx, paint, x, y, side, true);
    }
    if (kind === OFF) mark(ctx, paint, x, y, side, false);
    if (this.cells[3 * cell] & LIAR) cross(ctx, paint, x, y, side);
  }

  colour(paint, cell, kind) {
    if (kind === STOPPED) return [paint.stopped, paint.hairline];
    if (kind === OFF) return [paint.stopped, paint.high];
    const temperature = this.cells[3 * cell + 1], share = this.cells[3 * cell + 2];
    if (this.mode === "temperature" && temperature !== NONE) {
      if (temperature >= 85) return [paint.hot, paint.line];
      if (temperature >= 75) return [paint.warm, paint.warmLine];
      return [temperature >= 65 ? paint.normal : temperature >= 50 ? paint.mid : paint.cool, null];
    }
    if (this.mode === "hashrate" && share !== NONE) {
      if (share < 50) return [paint.warm, paint.warmLine];
      return [share >= 95 ? paint.normal : share >= 80 ? paint.mid : paint.cool, null];
    }
    return this.mode === "state" ? [paint.normal, null] : [paint.surface, paint.unknown];
  }

  legend(paint) {
    const list = document.getElementById("rack-legend");
    const modes = {
      temperature: [["below 50 °C", paint.cool], ["50 to 64 °C", paint.mid], ["65 to 74 °C", paint.normal], ["75 °C or more: warm", paint.warm], ["85 °C or more: hot", paint.hot]],
      hashrate: [["95 % or more", paint.normal], ["80 to 94 %", paint.mid], ["50 to 79 %", paint.cool], ["below 50 %", paint.warm]],
      state: [["running", paint.normal]],
    };
    const key = `${this.mode} ${paint.normal}`;
    if (this.legendKey === key) return;
    this.legendKey = key;
    const items = modes[this.mode].map(([word, fill]) => swatch(word, (ctx) => { ctx.fillStyle = fill; ctx.fillRect(0, 0, 12, 12); }));
    items.push(swatch("stopped by plan", (ctx) => { ctx.fillStyle = paint.stopped; ctx.fillRect(0, 0, 12, 12); ctx.strokeStyle = paint.hairline; ctx.strokeRect(0.5, 0.5, 11, 11); }));
    items.push(swatch("not known", (ctx) => hatch(ctx, paint.unknown, 0, 0, 12)));
    items.push(swatch("should be off, is on", (ctx) => { ctx.fillStyle = paint.normal; ctx.fillRect(0, 0, 12, 12); mark(ctx, paint, 0, 0, 12, true); }));
    items.push(swatch("should run, is off", (ctx) => mark(ctx, paint, 0, 0, 12, false)));
    items.push(swatch("liar", (ctx) => { ctx.fillStyle = paint.normal; ctx.fillRect(0, 0, 12, 12); cross(ctx, paint, 0, 0, 12); }));
    list.replaceChildren(...items);
  }

  point(event) {
    const area = this.canvas.getBoundingClientRect();
    const x = event.clientX - area.left, y = event.clientY - area.top;
    this.select(this.places.findIndex(([left, top]) => x >= left && x < left + this.size && y >= top && y < top + this.size));
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns };
    if (event.key === "Enter") { this.open(); return; }
    if (event.key === "Home") this.select(0);
    else if (event.key === "End") this.select(this.count - 1);
    else if (event.key in steps) this.select(Math.min(this.count - 1, Math.max(0, this.cursor + steps[event.key])));
    else return;
    event.preventDefault();
  }

  select(cell) {
    if (cell === this.cursor || cell >= this.count) return;
    this.cursor = cell;
    this.draw();
    if (cell < 0) return;
    this.tell();
    this.names();
  }

  tell() {
    const cell = this.cursor, kind = this.cells[3 * cell] & 7;
    const temperature = this.cells[3 * cell + 1], share = this.cells[3 * cell + 2];
    const parts = [this.ids?.miner_ids[cell] ?? "…", `rack ${this.racks[this.rackOf[cell]][0]}`, WORDS[kind]];
    if (this.cells[3 * cell] & LIAR) parts.push("liar: said it stopped and did not");
    if (kind !== UNKNOWN) {
      parts.push(temperature === NONE ? "temperature not known" : `${temperature} °C`);
      parts.push(share === NONE ? "share of nameplate not known" : `${share} % of nameplate`);
    }
    this.readout.textContent = parts.join(" · ");
  }

  open() {
    const miner = this.ids?.miner_ids[this.cursor];
    if (miner) location.assign(`/sites/${encodeURIComponent(this.box.dataset.site)}/miners/${encodeURIComponent(miner)}`);
  }
}

function palette() {
  return {
    cool: token("--map-cool"), mid: token("--map-mid"), normal: token("--map-normal"),
    warm: token("--map-warm"), warmLine: token("--high"), hot: token("--map-hot"), line: token("--map-line"),
    stopped: token("--map-stopped"), hairline: token("--hairline"), unknown: token("--unknown"),
    high: token("--high"), surface: token("--surface"),
  };
}

// A filled triangle for "is on, should be off"; a hollow one for "is off, should run".
function mark(ctx, paint, x, y, side, filled) {
  ctx.beginPath();
  ctx.moveTo(x + side / 2, y);
  ctx.lineTo(x + side, y + side);
  ctx.lineTo(x, y + side);
  ctx.closePath();
  ctx.fillStyle = filled ? paint.high : paint.surface;
  ctx.fill();
  ctx.strokeStyle = filled ? paint.surface : paint.high;
  ctx.lineWidth = 1;
  ctx.stroke();
}

// Somebody said it stopped and did not.
function cross(ctx, paint, x, y, side) {
  ctx.beginPath();
  ctx.moveTo(x + 2, y + 2);
  ctx.lineTo(x + side - 2, y + side - 2);
  ctx.moveTo(x + side - 2, y + 2);
  ctx.lineTo(x + 2, y + side - 2);
  ctx.strokeStyle = paint.line;
  ctx.lineWidth = 2;
  ctx.stroke();
}

function hatch(ctx, colour, x, y, side) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, side, side);
  ctx.clip();
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.2;
  for (let at = -side; at < side; at += 3) {
    ctx.beginPath();
    ctx.moveTo(x + at, y + side);
    ctx.lineTo(x + at + side, y);
    ctx.stroke();
  }
  ctx.restore();
}

function swatch(word, draw) {
  const item = document.createElement("li");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 24;
  canvas.className = "swatch";
  const ctx = canvas.getContext("2d");
  ctx.scale(2, 2);
  draw(ctx);
  item.append(canvas, document.createTextNode(word));
  return item;
}

function fit(ctx, text, room) {
  if (ctx.measureText(text).width <= room) return text;
  let cut = text;
  while (cut.length > 1 && ctx.measureText(`${cut}…`).width > room) cut = cut.slice(0, -1);
  return `${cut}…`;
}
